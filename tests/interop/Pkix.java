import java.io.FileInputStream;
import java.security.Security;
import java.security.cert.*;
import java.util.*;

/** Java's own path validation of a chain: Pkix none|crl|ocsp|ocsp-get|ocsp-post|ocsp-nonce ROOT [CA ...] LEAF. Prints one line: the verdict. The last
 *  three ask by OCSP alone, about the last certificate alone. Pkix at SECONDS ROOT [CA ...] LEAF judges at that time, without revocation;
 *  Pkix crl-file SECONDS CRL ROOT [CA ...] LEAF by that CRL alone.
 *  Pkix each: such words as lines of its standard input, parted by tabs, and a line for each. */
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
        if (args[0].equals("each")) {
            for (String line : new String(System.in.readAllBytes(), "UTF-8").split("\n")) {
                System.out.println(verdict(line.split("\t")));
            }
            return;
        }
        System.setProperty("com.sun.security.enableCRLDP", "true");
        System.out.println(verdict(args));
    }

    static String verdict(String[] args) throws Exception {
        boolean alone = args[0].startsWith("ocsp-");
        if (alone) {
            System.setProperty("com.sun.security.ocsp.useget", String.valueOf(args[0].equals("ocsp-get")));
        }
        Security.setProperty("ocsp.enable", "true");
        boolean given = args[0].equals("crl-file");
        int first = given ? 3 : args[0].equals("at") ? 2 : 1;
        X509Certificate root = read(args[first]);
        List<X509Certificate> chain = new ArrayList<>();
        for (int at = args.length - 1; at > first; at--) chain.add(read(args[at]));
        CertPath path = CertificateFactory.getInstance("X.509").generateCertPath(chain);
        PKIXParameters parameters = new PKIXParameters(Set.of(new TrustAnchor(root, null)));
        CertPathValidator validator = CertPathValidator.getInstance("PKIX");
        if (first > 1) {
            parameters.setDate(new Date(Long.parseLong(args[1]) * 1000));
        }
        if (args[0].equals("none") || args[0].equals("at")) {
            parameters.setRevocationEnabled(false);
        } else {
            PKIXRevocationChecker checker = (PKIXRevocationChecker) validator.getRevocationChecker();
            Set<PKIXRevocationChecker.Option> options = EnumSet.noneOf(PKIXRevocationChecker.Option.class);
            if (given) {
                try (FileInputStream in = new FileInputStream(args[2])) {
                    CRL crl = CertificateFactory.getInstance("X.509").generateCRL(in);
                    parameters.addCertStore(CertStore.getInstance("Collection", new CollectionCertStoreParameters(List.of(crl))));
                }
            }
            if (given || args[0].equals("crl")) {
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
            return "valid";
        } catch (CertPathValidatorException refused) {
            if (refused.getCause() instanceof CertificateRevokedException revoked) {
                return "revoked: " + revoked.getRevocationReason();
            }
            if (refused.getReason() == CertPathValidatorException.BasicReason.REVOKED) {
                return "revoked: " + refused.getMessage();
            }
            return "invalid: " + refused.getReason() + " " + refused.getMessage();
        }
    }
}
