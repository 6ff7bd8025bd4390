//! Encrypts private keys in the store with a key that is kept elsewhere, so that a copy of the store alone is not
//! enough to impersonate a policy host.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use data_encoding::BASE64;
use store::{Store, StoreError};

/// Encrypts and decrypts secrets with AES-256-GCM. Without a key (the default), secrets are stored as plain text.
#[derive(Default)]
pub struct Vault(Option<RandomizedNonceKey>);

/// Why a secret can't be encrypted or decrypted. The text never contains the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The key file does not hold a valid key.
    #[error("the key must be 32 random bytes in base64; create one with `openssl rand -base64 32`")]
    Key,
    /// The secret is encrypted, but no key is configured.
    #[error("it is encrypted, but no key is configured")]
    Locked,
    /// The secret was encrypted with another key, or the store was changed by hand.
    #[error("it was encrypted with another key")]
    Foreign,
    /// Encryption failed, since no random bytes are available.
    #[error("it can't be encrypted")]
    Sealing,
}

/// Number of keys read from the store at a time.
const BATCH_ROWS: u32 = 1000;
/// Name of the store's secret that shows whether the key is the right one.
const PROOF_LABEL: &str = "vault";
/// The prefix of encrypted secrets in the store; others are not encrypted.
const SEALED_PREFIX: &str = "sealed:1:";

impl Vault {
    /// Creates a vault from the text of a key file: 32 bytes in base64.
    pub fn with_key(text: &str) -> Result<Self, VaultError> {
        let bytes = BASE64.decode(text.trim().as_bytes()).map_err(|_| VaultError::Key)?;
        RandomizedNonceKey::new(&AES_256_GCM, &bytes).map(|key| Self(Some(key))).map_err(|_| VaultError::Key)
    }

    /// Encrypts a secret for `owner`. Without a key, returns it unchanged.
    pub fn seal(&self, owner: &str, secret: &str) -> Result<String, VaultError> {
        let Some(key) = &self.0 else { return Ok(secret.to_owned()) };
        let mut sealed = secret.as_bytes().to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::from(owner), &mut sealed);
        let nonce = nonce.map_err(|_| VaultError::Sealing)?;
        Ok(format!("{SEALED_PREFIX}{}", BASE64.encode(&[nonce.as_ref().as_slice(), &sealed].concat())))
    }

    /// Decrypts a secret of `owner`. A secret that was stored without encryption is returned unchanged.
    pub fn open(&self, owner: &str, kept: &str) -> Result<String, VaultError> {
        let Some(sealed) = kept.strip_prefix(SEALED_PREFIX) else { return Ok(kept.to_owned()) };
        let key = self.0.as_ref().ok_or(VaultError::Locked)?;
        let bytes = BASE64.decode(sealed.as_bytes()).map_err(|_| VaultError::Foreign)?;
        let (nonce, rest) = bytes.split_first_chunk::<NONCE_LEN>().ok_or(VaultError::Foreign)?;
        let mut text = rest.to_vec();
        let opened = key.open_in_place(Nonce::from(nonce), Aad::from(owner), &mut text);
        let opened = opened.map_err(|_| VaultError::Foreign)?;
        String::from_utf8(opened.to_vec()).map_err(|_| VaultError::Foreign)
    }

    /// Checks that this is the key of the store's secrets. If none are encrypted yet and there is a key, encrypts
    /// them and returns their number. The inner error is about the key.
    pub async fn prepare(&self, store: &Store) -> Result<Result<usize, VaultError>, StoreError> {
        if let Some(kept) = store.known_secret(PROOF_LABEL).await? {
            return Ok(self.open(PROOF_LABEL, &kept).map(|_| 0));
        }
        if self.0.is_none() {
            return Ok(Ok(0));
        }
        let (mut sealed, mut after) = (0, String::new());
        loop {
            let some = store.certificate_keys(&after, BATCH_ROWS).await?;
            let Some((last, _)) = some.last() else { break };
            after = last.to_string();
            for (host, kept) in some.iter().filter(|(_, kept)| !kept.starts_with(SEALED_PREFIX)) {
                match self.seal(host.as_str(), kept) {
                    Ok(new) => store.put_certificate_key(host, kept, &new).await?,
                    Err(error) => return Ok(Err(error)),
                }
                sealed += 1;
            }
        }
        match self.seal(PROOF_LABEL, "") {
            Ok(proof) => store.secret(PROOF_LABEL, &proof).await?,
            Err(error) => return Ok(Err(error)),
        };
        Ok(Ok(sealed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::hosting::StoredCertificate;

    fn vault(byte: u8) -> Vault {
        Vault::with_key(&(BASE64.encode(&[byte; 32]) + "\n")).unwrap()
    }

    #[test]
    fn a_sealed_secret_opens_only_with_its_key_and_for_its_owner() {
        let one = vault(1);
        let kept = one.seal("mta-sts.a.example", "SECRET").unwrap();
        assert!(kept.starts_with(SEALED_PREFIX) && !kept.contains("SECRET"));
        assert_ne!(kept, one.seal("mta-sts.a.example", "SECRET").unwrap(), "the nonce repeats");
        assert_eq!(one.open("mta-sts.a.example", &kept).as_deref(), Ok("SECRET"));
        assert_eq!(one.open("mta-sts.b.example", &kept), Err(VaultError::Foreign));
        assert_eq!(vault(2).open("mta-sts.a.example", &kept), Err(VaultError::Foreign));
        assert_eq!(Vault::default().open("mta-sts.a.example", &kept), Err(VaultError::Locked));
        for broken in ["", "AAAA", "%%%", &kept[SEALED_PREFIX.len()..kept.len() - 8]] {
            assert_eq!(
                one.open("mta-sts.a.example", &format!("{SEALED_PREFIX}{broken}")),
                Err(VaultError::Foreign)
            );
        }
    }

    #[test]
    fn without_a_key_secrets_are_stored_plain_and_can_be_read_later() {
        let bare = Vault::default();
        assert_eq!(bare.seal("o", "SECRET").as_deref(), Ok("SECRET"));
        assert_eq!(vault(1).open("o", "SECRET").as_deref(), Ok("SECRET"));
    }

    #[test]
    fn a_key_is_32_bytes_of_base64() {
        for bad in ["", "secret", "c2hvcnQ="] {
            assert_eq!(Vault::with_key(bad).err(), Some(VaultError::Key));
        }
    }

    #[tokio::test]
    async fn secrets_in_the_store_are_sealed_once_and_then_need_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let host = formats::DomainName::parse("mta-sts.a.example").unwrap();
        let given = StoredCertificate::given(host.clone(), "CHAIN".into(), "SECRET".into());
        store.put_certificate(&given).await.unwrap();
        let prepare = async |vault: &Vault| vault.prepare(&store).await.unwrap();
        assert_eq!(prepare(&Vault::default()).await, Ok(0));
        assert_eq!(prepare(&vault(1)).await, Ok(1));
        let kept = store.certificate(&host).await.unwrap().unwrap().key;
        assert_eq!(vault(1).open(host.as_str(), &kept).as_deref(), Ok("SECRET"));
        assert_eq!(prepare(&vault(1)).await, Ok(0));
        assert_eq!(prepare(&vault(2)).await, Err(VaultError::Foreign));
        assert_eq!(prepare(&Vault::default()).await, Err(VaultError::Locked));
    }
}
