//! Ways to send mail that the sandbox of the service does not allow, for `sternpost config check`, which runs outside of it. The
//! sandbox is read from the unit of this machine.
//!
//! A sendmail command of Postfix or Exim gets the rights to its queue by a set-ID program. Under `NoNewPrivileges=yes` such a
//! program keeps the rights of the service: Postfix's `postdrop` then tries for ever to write to `maildrop`, with "Permission
//! denied". A drop-in with `NoNewPrivileges=no` is not enough, since other settings of the sandbox imply it for a service that is
//! not root (systemd.exec(5)), and with `ProtectSystem=strict` the queue is read-only as well.

use super::unit_file::UnitFile;
use config::{Config, Deliver};
use std::path::{Component, Path};

/// The relay that takes the place of a command.
const RELAY: &str = "smarthost:127.0.0.1:25";
/// Settings that keep set-ID programs from working in a service with `User=`.
const NO_SET_ID: [&str; 2] = ["NoNewPrivileges", "RestrictSUIDSGID"];
/// Folders of which the service has its own, with `PrivateTmp=yes`.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// Each way to send mail that does not work in this unit: what is wrong, and what to do.
pub fn refused_ways(config: &Config, unit: &UnitFile) -> Vec<(String, String)> {
    let alerts = config.guard.as_ref().and_then(|guard| guard.mail.as_ref());
    let alerts = alerts.map(|mail| ("guard.mail_deliver", &mail.deliver));
    let reports = config.reporter.as_ref().map(|role| ("reporter.deliver", &role.deliver));
    let ways = alerts.into_iter().chain(reports);
    ways.filter_map(|(key, deliver)| match deliver {
        Deliver::Sendmail(program) => of_command(key, program, unit),
        Deliver::Folder(folder) => of_folder(key, folder, unit),
        Deliver::Direct | Deliver::Relay(..) => None,
    })
    .collect()
}

fn of_command(key: &str, program: &Path, unit: &UnitFile) -> Option<(String, String)> {
    let setting = NO_SET_ID.into_iter().find(|setting| unit.is_on(setting))?;
    let (section, name) = key.split_once('.')?;
    Some((
        format!(
            "{key}: {} can't write to the queue of the mail server, since sternpost.service has {setting}=yes: with the commands of Postfix and Exim, no mail leaves",
            program.display()
        ),
        format!(
            "Hand the mail to the mail server of this machine by SMTP. In [{section}] write\n  {name} = \"{RELAY}\""
        ),
    ))
}

fn of_folder(key: &str, folder: &Path, unit: &UnitFile) -> Option<(String, String)> {
    let shown = folder.display();
    let is_private = unit.is_on("PrivateTmp") && TEMPORARY.iter().any(|above| folder.starts_with(above));
    let why = match () {
        () if is_private => "the service has a folder for temporary files of its own (PrivateTmp=yes)",
        () if is_read_only(folder, unit) => "the folder is read-only for it (ProtectSystem=strict)",
        () => return None,
    };
    let remedy = match is_private {
        true => "Choose a folder below /var/lib/sternpost.".to_owned(),
        false => format!(
            "Choose a folder below /var/lib/sternpost, or let the service write to this one:\n  mkdir -p /etc/systemd/system/sternpost.service.d\n  printf '[Service]\\nReadWritePaths={shown}\\n' >/etc/systemd/system/sternpost.service.d/mail.conf\n  systemctl daemon-reload\n  systemctl restart sternpost.service"
        ),
    };
    Some((format!("{key}: what sternpost.service writes to {shown} does not get there: {why}"), remedy))
}

/// Whether the whole file system is read-only for the service apart from folders that do not contain this one.
fn is_read_only(folder: &Path, unit: &UnitFile) -> bool {
    let below = |key: &'static str, parent: &'static str| {
        unit.list(key).into_iter().map(move |name| Path::new(parent).join(name))
    };
    let named =
        unit.list("ReadWritePaths").into_iter().map(|path| path.trim_start_matches(['-', '+']).into());
    let mut writable = named
        .chain(below("StateDirectory", "/var/lib"))
        .chain(below("RuntimeDirectory", "/run"))
        .chain(below("CacheDirectory", "/var/cache"))
        .chain(below("LogsDirectory", "/var/log"));
    // A path with `..` may lead anywhere.
    let is_plain = folder.components().all(|part| part != Component::ParentDir);
    unit.last("ProtectSystem") == Some("strict")
        && !(is_plain && writable.any(|path| folder.starts_with(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGED: &str = include_str!("../../../../../packaging/sternpost.service");

    fn unit(root: &Path, text: &str) -> UnitFile {
        let folder = root.join("etc/systemd/system");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("sternpost.service"), text).unwrap();
        UnitFile::read(root)
    }

    fn found(text: &str, unit: &UnitFile) -> Vec<(String, String)> {
        refused_ways(&Config::parse(text, Some("/etc/sternpost/sternpost.toml".into())).unwrap(), unit)
    }

    fn reports(deliver: &str) -> String {
        format!(
            "[reporter]\nfrom = \"t@own.example\"\ndeliver = \"{deliver}\"\ndkim = [{{ selector = \"s\", key_file = \"k\" }}]\n"
        )
    }

    #[test]
    fn the_packaged_unit_lets_no_sendmail_command_work_and_the_line_to_write_is_named() {
        let root = tempfile::tempdir().unwrap();
        let packaged = unit(root.path(), PACKAGED);
        let alerts = "[guard]\nmail = [\"ops@own.example\"]\nmail_from = \"s@own.example\"\nmail_deliver = \"sendmail:/usr/sbin/sendmail\"\n";
        for (text, key, line) in [
            (
                reports("sendmail:/usr/sbin/sendmail"),
                "reporter.deliver: ",
                "In [reporter] write\n  deliver = \"smarthost:127.0.0.1:25\"",
            ),
            (
                alerts.to_owned(),
                "guard.mail_deliver: ",
                "In [guard] write\n  mail_deliver = \"smarthost:127.0.0.1:25\"",
            ),
        ] {
            let [(what, remedy)] = found(&text, &packaged).try_into().unwrap();
            assert!(what.starts_with(key) && what.contains("NoNewPrivileges=yes"), "{what}");
            assert!(remedy.contains(line), "{remedy}");
            assert!(found(&text, &UnitFile::default()).is_empty());
        }
        for works in ["direct", RELAY] {
            assert_eq!(found(&reports(works), &packaged), [], "{works}");
        }
        let implied = unit(root.path(), &PACKAGED.replace("NoNewPrivileges=yes", "NoNewPrivileges=no"));
        let [(what, _)] = found(&reports("sendmail:/usr/sbin/sendmail"), &implied).try_into().unwrap();
        assert!(what.contains("RestrictSUIDSGID=yes"), "{what}");
    }

    #[test]
    fn a_folder_that_the_packaged_unit_can_not_write_to_is_found() {
        let root = tempfile::tempdir().unwrap();
        let packaged = unit(root.path(), PACKAGED);
        for (folder, why) in [
            ("/var/lib/sternpost/outbox", None),
            ("/run/sternpost/outbox", None),
            ("/var/lib/sternpost/../mail", Some("ProtectSystem=strict")),
            ("/srv/reports", Some("ProtectSystem=strict")),
            ("outbox", Some("ProtectSystem=strict")),
            ("/tmp/reports", Some("PrivateTmp=yes")),
        ] {
            let found = found(&reports(&format!("folder:{folder}")), &packaged);
            match (why, found.as_slice()) {
                (None, []) => {}
                (Some(why), [(what, remedy)]) => {
                    assert!(what.contains(why) && remedy.contains("/var/lib/sternpost"), "{what} {remedy}");
                }
                _ => panic!("{folder}: {found:?}"),
            }
        }
        let text = format!("{PACKAGED}ReadWritePaths=/srv\n");
        assert_eq!(found(&reports("folder:/srv/reports"), &unit(root.path(), &text)), []);
    }
}
