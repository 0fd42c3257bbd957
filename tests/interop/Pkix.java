import java.io.FileInputStream;
import java.security.Security;
import java.security.cert.*;
import java.util.*;

/** Java's own path validation of a chain: Pkix none|crl|ocsp ROOT [CA ...] LEAF. Prints one line: the verdict. */
public class Pkix {
    static X509Certificate read(String path) throws Exception {
        try (FileInputStream in = new FileInputStream(path)) {
            return (X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(in);
        }
    }

    public static void main(String[] args) throws Exception {
        System.setProperty("com.sun.security.enableCRLDP", "true");
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
