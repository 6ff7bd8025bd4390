//! Generates the files to serve policies from another web server or hosting platform: policy files, server
//! configuration, and a guide with the remaining steps. Pure: [`files`] returns paths and contents; the command
//! `export` writes them.

use formats::{DomainName, Policy};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The web server or platform that will serve the policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// Cloudflare Pages.
    CloudflarePages,
    /// GitHub Pages.
    GithubPages,
    /// nginx.
    Nginx,
    /// Caddy.
    Caddy,
    /// Apache httpd.
    Apache,
}

/// A domain and its current policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The mail domain.
    pub domain: DomainName,
    /// The policy to serve.
    pub policy: Policy,
}

/// A file of the export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The path, relative to the export folder.
    pub path: PathBuf,
    /// The text of the file.
    pub content: String,
}

/// Name of the guide with the remaining steps.
pub const GUIDE: &str = "STERNPOST.md";

impl Platform {
    /// True when a site holds one policy only, so that each domain needs its own folder.
    pub fn is_one_policy_each(self) -> bool {
        matches!(self, Self::CloudflarePages | Self::GithubPages)
    }
}

/// Returns the files for these domains. `folder` is the path under which the web server finds them.
pub fn files(platform: Platform, pages: &[Page], folder: &Path) -> Vec<File> {
    if platform.is_one_policy_each() {
        let alone = pages.len() == 1;
        let below = |page: &Page| if alone { PathBuf::new() } else { PathBuf::from(page.domain.as_str()) };
        return pages.iter().flat_map(|page| site(platform, page, &below(page))).collect();
    }
    let mut all: Vec<File> =
        pages.iter().map(|page| file(&policy_path(&page.domain), page.policy.to_string())).collect();
    let (name, text) = match platform {
        Platform::Caddy => ("Caddyfile", caddy(pages, folder)),
        Platform::Apache => ("apache.conf", apache(pages, folder)),
        _ => ("nginx.conf", nginx(pages, folder)),
    };
    all.push(file(Path::new(name), text));
    all.push(file(Path::new(GUIDE), server_guide(platform, name, pages, folder)));
    all
}

fn file(path: &Path, content: String) -> File {
    File { path: path.to_owned(), content }
}

fn policy_path(domain: &DomainName) -> PathBuf {
    Path::new(domain.as_str()).join("mta-sts.txt")
}

fn site(platform: Platform, page: &Page, below: &Path) -> Vec<File> {
    let mut all = vec![file(&below.join(".well-known/mta-sts.txt"), page.policy.to_string())];
    let guide = match platform {
        Platform::GithubPages => {
            // GitHub Pages omits folders that begin with a dot unless this file exists.
            all.push(file(&below.join(".nojekyll"), String::new()));
            all.push(file(&below.join("CNAME"), format!("mta-sts.{}\n", page.domain)));
            github_guide(&page.domain)
        }
        _ => {
            let headers = "/.well-known/mta-sts.txt\n  Content-Type: text/plain; charset=utf-8\n  Cache-Control: max-age=60\n";
            all.push(file(&below.join("_headers"), headers.to_owned()));
            cloudflare_guide(&page.domain)
        }
    };
    all.push(file(&below.join(GUIDE), guide));
    all
}

fn check(domain: &DomainName) -> String {
    format!(
        "## Verify\n\n    curl https://mta-sts.{domain}/.well-known/mta-sts.txt\n    sternpost apply {domain}\n\n\
         `sternpost apply` fetches the policy as a sender does, and continues from there. When the policy changes, export\n\
         and publish again; `sternpost plan` shows when that is due.\n"
    )
}

fn github_guide(domain: &DomainName) -> String {
    format!(
        "# The policy of {domain} on GitHub Pages\n\n\
         This folder is a whole site. GitHub serves one custom domain from a repository, so each domain needs its own repository.\n\n\
         1. Push it to a new public repository:\n\n\
         \x20       git init -b main && git add -A && git commit -m 'MTA-STS policy'\n\
         \x20       git remote add origin git@github.com:USER/mta-sts-{domain}.git && git push -u origin main\n\n\
         2. Add this record, with your user or organization in place of USER:\n\n\
         \x20       mta-sts.{domain}. 300 IN CNAME USER.github.io.\n\n\
         3. Settings, Pages: source *Deploy from a branch*, branch `main`, folder `/ (root)`. The custom domain\n\
         \x20  `mta-sts.{domain}` is taken from the file CNAME.\n\
         4. Wait for the certificate; GitHub issues it once the name points there, which can take an hour. *Enforce\n\
         \x20  HTTPS* may be on or off.\n\n\
         Keep `.nojekyll`: without it GitHub omits `.well-known`.\n\n{}",
        check(domain)
    )
}

fn cloudflare_guide(domain: &DomainName) -> String {
    format!(
        "# The policy of {domain} on Cloudflare Pages\n\n\
         This folder is a whole site. All custom domains of a project get the same files, so domains with different\n\
         policies need a project each.\n\n\
         1. Upload it: `npx wrangler pages deploy . --project-name mta-sts`, or *Workers & Pages*, *Create*, *Pages*,\n\
         \x20  *Upload assets*.\n\
         2. In the project, *Custom domains*: add `mta-sts.{domain}`. If Cloudflare hosts the zone, it creates the record\n\
         \x20  for you; otherwise add\n\n\
         \x20       mta-sts.{domain}. 300 IN CNAME PROJECT.pages.dev.\n\n\
         3. Make sure that nothing in the zone's settings blocks senders: no redirect rule that sends\n\
         \x20  `mta-sts.{domain}` to another host, no bot fight mode, no \"under attack\" mode.\n\n{}",
        check(domain)
    )
}

fn server_guide(platform: Platform, name: &str, pages: &[Page], folder: &Path) -> String {
    let (server, how) = match platform {
        Platform::Caddy => (
            "Caddy",
            format!(
                "    import {}\n\nin the Caddyfile, then `caddy reload`. Caddy obtains the certificates itself.",
                folder.join(name).display()
            ),
        ),
        Platform::Apache => (
            "Apache",
            format!(
                "    Include {}\n\nin the configuration, with the modules ssl and alias on (`a2enmod ssl`), then `apachectl graceful`.",
                folder.join(name).display()
            ),
        ),
        _ => (
            "nginx",
            format!(
                "    include {};\n\nin the `http` block of nginx.conf, then `nginx -s reload`.",
                folder.join(name).display()
            ),
        ),
    };
    let mut out = format!("# Policies served by {server}\n\n1. Point each name to this server:\n\n");
    for page in pages {
        let _ = writeln!(out, "        mta-sts.{}. 300 IN A YOUR-ADDRESS", page.domain);
    }
    let mut include = 2;
    if platform != Platform::Caddy {
        include = 3;
        let _ = writeln!(
            out,
            "\n2. Get a certificate for each name, and have it renewed automatically. {server} does not start with a site whose\n\
             \x20  certificate is missing, so this comes before the sites:\n"
        );
        for page in pages {
            let _ = writeln!(
                out,
                "        certbot certonly --webroot -w /var/www/html -d mta-sts.{}",
                page.domain
            );
        }
    }
    let _ = writeln!(out, "\n{include}. Include the sites:\n\n{how}");
    let _ = writeln!(
        out,
        "\nEach name has a site of its own, with its own certificate, and nothing redirects: senders accept status 200 and\n\
         nothing else. The web server must be able to read {}.\n",
        folder.display()
    );
    if let Some(page) = pages.first() {
        out.push_str(&check(&page.domain));
    }
    out
}

fn nginx(pages: &[Page], folder: &Path) -> String {
    let site = |page: &Page| {
        let (host, path) = (format!("mta-sts.{}", page.domain), folder.join(policy_path(&page.domain)));
        format!(
            "server {{\n    listen 443 ssl;\n    listen [::]:443 ssl;\n    server_name {host};\n    ssl_protocols TLSv1.2 TLSv1.3;\n\
             \x20   ssl_certificate /etc/letsencrypt/live/{host}/fullchain.pem;\n    ssl_certificate_key /etc/letsencrypt/live/{host}/privkey.pem;\n\n\
             \x20   location = /.well-known/mta-sts.txt {{\n        alias \"{}\";\n        types {{ }}\n        default_type \"text/plain; charset=utf-8\";\n\
             \x20       add_header Cache-Control max-age=60;\n        limit_except GET {{ deny all; }}\n    }}\n    location / {{\n        return 404;\n    }}\n}}\n",
            path.display()
        )
    };
    pages.iter().map(site).collect::<Vec<_>>().join("\n")
}

fn caddy(pages: &[Page], folder: &Path) -> String {
    let site = |page: &Page| {
        format!(
            "mta-sts.{} {{\n\troot * \"{}\"\n\t@policy {{\n\t\tmethod GET HEAD\n\t\tpath /.well-known/mta-sts.txt\n\t}}\n\thandle @policy {{\n\
             \t\trewrite * /mta-sts.txt\n\t\theader Content-Type \"text/plain; charset=utf-8\"\n\t\theader Cache-Control max-age=60\n\t\tfile_server\n\t}}\n\
             \thandle {{\n\t\trespond 404\n\t}}\n}}\n",
            page.domain,
            folder.join(page.domain.as_str()).display()
        )
    };
    pages.iter().map(site).collect::<Vec<_>>().join("\n")
}

fn apache(pages: &[Page], folder: &Path) -> String {
    let site = |page: &Page| {
        let (host, path) = (format!("mta-sts.{}", page.domain), folder.join(page.domain.as_str()));
        let path = path.display();
        format!(
            "<VirtualHost *:443>\n    ServerName {host}\n    SSLEngine on\n    SSLProtocol -all +TLSv1.2 +TLSv1.3\n\
             \x20   SSLCertificateFile /etc/letsencrypt/live/{host}/fullchain.pem\n    SSLCertificateKeyFile /etc/letsencrypt/live/{host}/privkey.pem\n\
             \x20   Alias \"/.well-known/mta-sts.txt\" \"{path}/mta-sts.txt\"\n    RedirectMatch 404 \"^/(?!\\.well-known/mta-sts\\.txt$)\"\n\
             \x20   <Directory \"{path}\">\n        Require all granted\n        <If \"! %{{REQUEST_METHOD}} in {{ 'GET', 'HEAD' }}\">\n            Require all denied\n        </If>\n\
             \x20       <Files \"mta-sts.txt\">\n            ForceType \"text/plain; charset=utf-8\"\n            <IfModule mod_headers.c>\n                Header set Cache-Control max-age=60\n            </IfModule>\n        </Files>\n    </Directory>\n</VirtualHost>\n"
        )
    };
    pages.iter().map(site).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::{Mode, MxPattern};

    fn page(domain: &str) -> Page {
        let mx = vec![MxPattern::parse("mx.example.org").unwrap()];
        Page {
            domain: DomainName::parse(domain).unwrap(),
            policy: Policy::new(Mode::Testing, 86_400, mx).unwrap(),
        }
    }

    fn paths(platform: Platform, domains: &[&str]) -> Vec<String> {
        let pages: Vec<Page> = domains.iter().map(|domain| page(domain)).collect();
        let files = files(platform, &pages, Path::new("/srv/x"));
        files.iter().map(|file| file.path.display().to_string()).collect()
    }

    #[test]
    fn a_single_domain_fills_the_folder_and_several_have_one_each() {
        assert_eq!(
            paths(Platform::GithubPages, &["a.example"]),
            [".well-known/mta-sts.txt", ".nojekyll", "CNAME", GUIDE]
        );
        assert_eq!(
            paths(Platform::CloudflarePages, &["a.example", "b.example"]),
            [
                "a.example/.well-known/mta-sts.txt",
                "a.example/_headers",
                "a.example/STERNPOST.md",
                "b.example/.well-known/mta-sts.txt",
                "b.example/_headers",
                "b.example/STERNPOST.md"
            ]
        );
        assert_eq!(
            paths(Platform::Nginx, &["a.example", "b.example"]),
            ["a.example/mta-sts.txt", "b.example/mta-sts.txt", "nginx.conf", GUIDE]
        );
    }

    #[test]
    fn the_steps_of_a_guide_are_in_the_order_that_works() {
        for platform in [Platform::Nginx, Platform::Caddy, Platform::Apache] {
            let files = files(platform, &[page("a.example")], Path::new("/srv/x"));
            let guide = &files.iter().find(|file| file.path == Path::new(GUIDE)).unwrap().content;
            let steps: Vec<&str> = guide.lines().filter(|line| line.starts_with(char::is_numeric)).collect();
            let expected: &[&str] = match platform {
                Platform::Caddy => &["1. Point", "2. Include"],
                _ => &["1. Point", "2. Get a certificate", "3. Include"],
            };
            assert!(
                steps.len() == expected.len()
                    && steps.iter().zip(expected).all(|(step, begin)| step.starts_with(begin)),
                "{guide}"
            );
        }
    }

    #[test]
    fn pub_06_the_name_of_each_site_is_the_customers_own() {
        for platform in [Platform::Nginx, Platform::Caddy, Platform::Apache] {
            let files = files(platform, &[page("a.example"), page("b.example")], Path::new("/srv/x"));
            let configuration = &files[2].content;
            assert!(
                configuration.contains("mta-sts.a.example") && configuration.contains("mta-sts.b.example")
            );
        }
    }
}
