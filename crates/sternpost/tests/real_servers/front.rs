//! `[host]` behind others' proxies, with certificates of the operator's own, and against clients that are slow on purpose:
//! nginx in front, curl as the client and as a proxy that introduces whom it speaks for.

use crate::patience::until_ready;
use crate::support::{Running, daemon, in_a_room_of_its_own, shell, until};
use formats::DomainName;
use lab::pki::{Cert, Pki};
use net::clock::{Clock, SystemClock};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;
use store::Store;
use tempfile::TempDir;

const POLICY: &str = "version: STSv1\r\nmode: none\r\nmax_age: 86400\r\n";

/// The program, with a policy for each domain and no certificate in the store.
fn serve(place: &Path, domains: &[&str], host: &str) -> Running {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(&place.join("sternpost.db"), store::Tenant::FIRST).await.unwrap();
        for domain in domains {
            store.put_hosted(&DomainName::parse(domain).unwrap(), Some(POLICY)).await.unwrap();
        }
        store.close().await;
    });
    let config = format!("[dns]\nservers = [\"127.0.0.1:53\"]\ndnssec = \"off\"\n[host]\n{host}");
    std::fs::write(place.join("sternpost.toml"), config).unwrap();
    let line =
        format!("{} --config {}/sternpost.toml serve", env!("CARGO_BIN_EXE_sternpost"), place.display());
    let log = place.join("serve.log");
    let mut running = daemon(&line, &log);
    until_ready(&mut running.0, &log);
    running
}

/// A folder, and an authority whose root is in it.
fn ground() -> (TempDir, Pki) {
    let place = tempfile::tempdir().unwrap();
    let pki = Pki::new(SystemClock.now()).unwrap();
    std::fs::write(place.path().join("roots.pem"), pki.root_pem()).unwrap();
    (place, pki)
}

fn write_certificate(place: &Path, pki: &Pki, name: &str, host: &str) {
    let identity = pki.issue(host, Cert::Good).unwrap();
    std::fs::write(place.join(format!("{name}.pem")), identity.chain_pem()).unwrap();
    std::fs::write(place.join(format!("{name}.key")), identity.key_pem()).unwrap();
}

/// What curl gets of a host at an address; the words go in front.
fn fetch(place: &Path, host: &str, at: &str, words: &str) -> String {
    shell(&format!(
        "curl -s {words} --max-time 100 --cacert {}/roots.pem --connect-to {host}:443:{at} -w '%{{http_code}} %{{http_version}}' https://{host}/.well-known/mta-sts.txt || echo failed",
        place.display()
    ))
}

#[test]
fn a_web_server_of_the_operators_has_the_certificates_and_passes_requests_on() {
    in_a_room_of_its_own(|| {
        let (place, pki) = ground();
        let place = place.path();
        let _serve =
            serve(place, &["one.test", "two.test"], "listen = []\nbehind_proxy = [\"127.0.0.50:8080\"]\n");
        let mut servers = String::new();
        for name in ["one", "two", "three"] {
            write_certificate(place, &pki, name, &format!("mta-sts.{name}.test"));
            servers += &format!(
                "server {{ listen 127.0.0.60:443 ssl http2; server_name mta-sts.{name}.test; ssl_certificate {0}/{name}.pem; ssl_certificate_key {0}/{name}.key;\n\
                 location / {{ proxy_pass http://127.0.0.50:8080; proxy_set_header Host $host; }} }}\n",
                place.display()
            );
        }
        let config = format!(
            "daemon off; pid {0}/nginx.pid; error_log {0}/nginx.err;\nevents {{}}\nhttp {{ access_log off; client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;\n{servers}}}\n",
            place.display()
        );
        std::fs::write(place.join("nginx.conf"), config).unwrap();
        let _nginx = daemon(
            &format!("nginx -e {0}/nginx.err -c {0}/nginx.conf", place.display()),
            &place.join("nginx.log"),
        );
        let get = |host: &str| fetch(place, host, "127.0.0.60:443", "--http2");
        until("nginx answers", || get("mta-sts.one.test").contains("200 2"));
        assert_eq!(get("mta-sts.two.test"), format!("{POLICY}200 2"));
        assert!(get("mta-sts.three.test").contains("404"), "a policy of nobody's");
        // Ports and capitals in the host's name change nothing.
        let bare =
            shell("curl -s -H 'Host: MTA-STS.one.test:8080' http://127.0.0.50:8080/.well-known/mta-sts.txt");
        assert_eq!(bare, POLICY);
    });
}

#[test]
fn a_proxy_introduces_whom_it_speaks_for_and_others_are_turned_away() {
    in_a_room_of_its_own(|| {
        let (place, pki) = ground();
        let place = place.path();
        write_certificate(place, &pki, "one", "mta-sts.one.test");
        let _serve = serve(
            place,
            &["one.test"],
            "listen = [\"127.0.0.50:443\"]\nhttp = [\"127.0.0.50:80\"]\nproxy_header = true\n[[host.certificates]]\ncertificate = \"one.pem\"\nkey = \"one.key\"\n",
        );
        let get = |words| fetch(place, "mta-sts.one.test", "127.0.0.50:443", words);
        assert_eq!(get("--haproxy-protocol"), format!("{POLICY}200 2"));
        assert!(get("").contains("failed"));
        let hint = |words: &str| shell(&format!("curl -s {words} http://127.0.0.50/ || echo failed"));
        assert!(hint("--haproxy-protocol").contains("over HTTPS only") && hint("").contains("failed"));
    });
}

#[test]
fn certificates_of_the_operators_own_serve_and_are_taken_in_again_when_their_files_change() {
    in_a_room_of_its_own(|| {
        let (place, pki) = ground();
        let place = place.path();
        write_certificate(place, &pki, "one", "mta-sts.one.test");
        let _serve = serve(
            place,
            &["one.test", "two.test"],
            "listen = [\"127.0.0.50:443\"]\n[[host.certificates]]\ncertificate = \"one.pem\"\nkey = \"one.key\"\n",
        );
        let get = |host| fetch(place, host, "127.0.0.50:443", "");
        assert_eq!(get("mta-sts.one.test"), format!("{POLICY}200 2"));
        assert!(get("mta-sts.two.test").contains("failed"));
        std::fs::write(place.join("one.pem"), "nothing that helps").unwrap();
        let log = || std::fs::read_to_string(place.join("serve.log")).unwrap();
        until("the change is told", || log().contains("the previous one stays in use"));
        assert_eq!(get("mta-sts.one.test"), format!("{POLICY}200 2"));
        write_certificate(place, &pki, "one", "mta-sts.two.test");
        until("the new one serves", || get("mta-sts.two.test") == format!("{POLICY}200 2"));
        assert!(get("mta-sts.one.test").contains("failed"), "a certificate that is gone is served");
    });
}

#[test]
fn clients_that_are_slow_on_purpose_are_cut_off_and_hinder_nobody() {
    in_a_room_of_its_own(|| {
        let (place, pki) = ground();
        let place = place.path();
        write_certificate(place, &pki, "one", "mta-sts.one.test");
        let _serve = serve(
            place,
            &["one.test"],
            "listen = [\"127.0.0.50:443\"]\nhttp = [\"127.0.0.50:80\"]\n[[host.certificates]]\ncertificate = \"one.pem\"\nkey = \"one.key\"\n",
        );
        // Half a hello, half a request, and nothing at all, and a byte now and then.
        let starts: [(&str, &[u8]); 3] = [
            ("127.0.0.50:443", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
            ("127.0.0.50:80", b"GET / HTTP/1.1\r\nHost: mta-"),
            ("127.0.0.50:443", b""),
        ];
        let mut slow: Vec<TcpStream> = Vec::new();
        for (address, bytes) in starts.iter().cycle().take(600) {
            let mut stream = TcpStream::connect(address).unwrap();
            // One that is turned away at once may be closed by now.
            let _ = stream.write_all(bytes);
            stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            slow.push(stream);
        }
        // More than one address gets at once; others come from elsewhere.
        let other = fetch(place, "mta-sts.one.test", "127.0.0.50:443", "--interface 127.0.0.3");
        assert_eq!(other, format!("{POLICY}200 2"));
        until("all are cut off", || {
            slow.retain_mut(|stream| {
                // One more byte keeps nobody in.
                let _ = stream.write_all(b"x");
                match stream.read(&mut [0; 1024]) {
                    Ok(0) => false,
                    Ok(_) => true,
                    Err(error) => {
                        matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
                    }
                }
            });
            slow.is_empty()
        });
    });
}
