//! Signing in to the dashboard by a real OpenID Connect provider and a real browser (`tests/pages/sign-on.mjs`).

use crate::patience::until_ready;
use crate::postfix::unpacked;
use crate::support::{daemon, in_a_room_of_its_own, shell};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[test]
fn users_of_a_real_provider_sign_in_with_the_role_of_their_groups() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let at = place.path().display();
        shell(&format!(
            "cd {at} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj /CN=ca -keyout ca.key -out ca.pem 2>&1 \
             && openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=id -keyout id.key -out id.csr 2>&1 \
             && printf 'subjectAltName=DNS:localhost\\n' > id.ext \
             && openssl x509 -req -in id.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 9 -extfile id.ext -out id.pem 2>&1"
        ));
        let secret = place.path().join("oidc.secret");
        std::fs::write(&secret, "not:a secret+of/ours\n").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let config = "[dns]\nservers = [\"127.0.0.1:1\"]\n[trust]\nca_file = \"ca.pem\"\n[dashboard]\nurl = \"http://127.0.0.1:8460\"\n\
                      [dashboard.oidc]\nissuer = \"https://localhost:9443\"\nclient_id = \"sternpost\"\nclient_secret_file = \"oidc.secret\"\n\
                      name = \"Example ID\"\noperator_groups = [\"mail-admins\"]\nreader_groups = [\"support\"]\nscopes = \"openid profile groups\"\n";
        std::fs::write(place.path().join("sternpost.toml"), config).unwrap();
        let log = place.path().join("log");
        let command = format!("{} --config {at}/sternpost.toml", env!("CARGO_BIN_EXE_sternpost"));
        let mut running = daemon(&format!("{command} serve"), &log);
        until_ready(&mut running.0, &log);
        let said = shell(&format!(
            "node {}/tests/pages/sign-on.mjs {} http://127.0.0.1:8460 https://localhost:9443 {at}/id.pem {at}/id.key",
            Path::new(env!("CARGO_MANIFEST_DIR")).display(),
            unpacked("pages").display(),
        ));
        assert!(said.contains("olivia: operator\nrita: reader\nnobody: no access\n"), "{said}");
        let log = std::fs::read_to_string(&log).unwrap();
        assert!(log.contains("signed in") && log.contains("OpenID Connect"), "{log}");
        assert!(!log.contains("secret+of"), "{log}");
    });
}
