//! Versions of client and servers as an answer.

use crate::output::Answer;
use crate::output::table::Table;
use serde::Serialize;

/// Version of this program.
pub const CLIENT: &str = env!("CARGO_PKG_VERSION");

/// Versions of client and servers.
#[derive(Clone, Debug, Serialize)]
pub struct Versions {
    /// This program.
    pub client: &'static str,
    /// Servers by address.
    pub servers: Vec<ServerVersion>,
}

/// Version of one server.
#[derive(Clone, Debug, Serialize)]
pub struct ServerVersion {
    /// Address.
    pub address: String,
    /// Version; none when it did not answer.
    pub version: Option<String>,
    /// Why it did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Answer for Versions {
    fn tables(&self, _wide: bool) -> Vec<Table> {
        let mut table = Table::fields();
        table.field("client", self.client);
        for server in &self.servers {
            let text = server.version.clone().or(server.error.clone()).unwrap_or_default();
            table.field(&server.address, text);
        }
        vec![table]
    }
}
