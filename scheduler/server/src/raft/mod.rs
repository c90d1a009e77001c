//! Traffic between servers: the client side, which the quorum uses as its transport, and the
//! service on the peer port.
//!
//! **Invariant:** bodies are opaque here; whoever calls shows the cluster's name and secret, and
//! names the server it means to reach.

mod client;
mod service;

pub(crate) use client::Peers;
pub(crate) use service::PeerApi;

use crate::config::Cluster;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

/// Largest message between servers, with room for its envelope.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024 + 1024;
const CLUSTER_KEY: &str = "x-muster-cluster";
const SECRET_KEY: &str = "x-muster-cluster-secret";

/// What servers of one cluster show each other.
#[derive(Clone)]
pub(crate) struct Passport {
    cluster: MetadataValue<Ascii>,
    secret: Option<MetadataValue<Ascii>>,
}

impl Passport {
    /// The cluster's passport; `None` when its texts do not fit a header, which a checked
    /// configuration rules out.
    pub(crate) fn new(cluster: &Cluster) -> Option<Self> {
        let secret = match &cluster.secret {
            Some(secret) => {
                let mut value: MetadataValue<Ascii> = secret.reveal().parse().ok()?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        Some(Self { cluster: cluster.id.as_str().parse().ok()?, secret })
    }

    fn show(&self, metadata: &mut MetadataMap) {
        metadata.insert(CLUSTER_KEY, self.cluster.clone());
        if let Some(secret) = &self.secret {
            metadata.insert(SECRET_KEY, secret.clone());
        }
    }

    /// Whether the other side belongs to this cluster; the text says why not.
    fn check(&self, metadata: &MetadataMap) -> Result<(), &'static str> {
        if metadata.get(CLUSTER_KEY) != Some(&self.cluster) {
            return Err("the caller belongs to another cluster");
        }
        let Some(secret) = &self.secret else { return Ok(()) };
        let shown = metadata.get(SECRET_KEY).map_or(&[][..], |value| value.as_bytes());
        let digest = |bytes: &[u8]| -> [u8; 32] { Sha256::digest(bytes).into() };
        let same = digest(shown).ct_eq(&digest(secret.as_bytes()));
        if bool::from(same) { Ok(()) } else { Err("the caller does not know the cluster's secret") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Secret};

    #[test]
    fn only_the_own_cluster_gets_in() {
        let mut cluster = Config::dev(1, "/tmp/x").cluster;
        let open = Passport::new(&cluster).expect("fits");
        cluster.secret = Some(Secret::new("0123456789abcdef"));
        let ours = Passport::new(&cluster).expect("fits");
        cluster.secret = Some(Secret::new("0123456789abcdeF"));
        let near = Passport::new(&cluster).expect("fits");
        let shown = |passport: &Passport| {
            let mut metadata = MetadataMap::new();
            passport.show(&mut metadata);
            metadata
        };
        assert!(ours.check(&shown(&ours)).is_ok());
        assert!(ours.check(&shown(&near)).is_err());
        assert!(ours.check(&shown(&open)).is_err());
        assert!(open.check(&shown(&open)).is_ok());
        assert!(open.check(&MetadataMap::new()).is_err());
        assert!(!format!("{:?}", shown(&ours)).contains("0123456789abcdef"));
    }
}
