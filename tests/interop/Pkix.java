import java.io.FileInputStream;
import java.security.Security;
import java.security.cert.*;
import java.util.*;

/** Java's own path validation of a chain: Pkix none|crl|ocsp|ocsp-get|ocsp-post|ocsp-nonce ROOT [CA ...] LEAF. Prints one line: the verdict. The last
 *  three ask by OCSP alone, about the last certificate alone. */
public class Pkix {
    /** The nonce extension (RFC 9654 2.1). */
    record Nonce(byte[] octets) implements Extension {
        public String getId() { return "1.3.6.1.5.5.7.48.1.2"; }
        public boolean isCritical() { return false; }
        public byte[] getValue() {
            byte[] value = new byte[octets.length + 2];
            value[0] = 4;
            value[1] = (byte) octets.length;
            System.arraycopy(octets, 0, value, 2, octets.length);
            return value;
        }
        public void encode(java.io.OutputStream out) throws java.io.IOException {
            byte[] id = {6, 9, 43, 6, 1, 5, 5, 7, 48, 1, 2};
            byte[] inner = getValue();
            out.write(48);
            out.write(id.length + 2 + inner.length);
            out.write(id);
            out.write(4);
            out.write(inner.length);
            out.write(inner);
        }
    }

    static X509Certificate read(String path) throws Exception {
        try (FileInputStream in = new FileInputStream(path)) {
            return (X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(in);
        }
    }

    public static void main(String[] args) throws Exception {
        System.setProperty("com.sun.security.enableCRLDP", "true");
        boolean alone = args[0].startsWith("ocsp-");
        if (alone) {
            System.setProperty("com.sun.security.ocsp.useget", String.valueOf(args[0].equals("ocsp-get")));
        }
        Security.setProperty("ocsp.enable", "true");
        X509Certificate root = read(args[1]);
        List<X509Certificate> chain = new ArrayList<>();
        for (int at = args.length - 1; at >= 2; at--) chain.add(read(args[at]));
        CertPath path = CertificateFactory.getInstance("X.509").generateCertPath(chain);
        PKIXParameters parameters = new PKIXParameters(Set.of(new TrustAnchor(root, null)));
        CertPathValidator validator = CertPathValidator.getInstance("PKIX");
        if (args[0].equals("none")) {
            parameters.setRevocationEnabled(false);
        } else {
            PKIXRevocationChecker checker = (PKIXRevocationChecker) validator.getRevocationChecker();
            Set<PKIXRevocationChecker.Option> options = EnumSet.noneOf(PKIXRevocationChecker.Option.class);
            if (args[0].equals("crl")) {
                options.add(PKIXRevocationChecker.Option.PREFER_CRLS);
                options.add(PKIXRevocationChecker.Option.NO_FALLBACK);
            }
            if (alone) {
                options.add(PKIXRevocationChecker.Option.NO_FALLBACK);
                options.add(PKIXRevocationChecker.Option.ONLY_END_ENTITY);
                if (args[0].equals("ocsp-nonce")) {
                    byte[] nonce = new byte[32];
                    new java.security.SecureRandom().nextBytes(nonce);
                    checker.setOcspExtensions(List.of(new Nonce(nonce)));
                }
            }
            checker.setOptions(options);
            parameters.addCertPathChecker(checker);
        }
        try {
            validator.validate(path, parameters);
            System.out.println("valid");
        } catch (CertPathValidatorException refused) {
            if (refused.getCause() instanceof CertificateRevokedException revoked) {
                System.out.println("revoked: " + revoked.getRevocationReason());
            } else if (refused.getReason() == CertPathValidatorException.BasicReason.REVOKED) {
                System.out.println("revoked: " + refused.getMessage());
            } else {
                System.out.println("invalid: " + refused.getReason() + " " + refused.getMessage());
            }
        }
    }
}
