//! Configuration files, good and bad.

use super::*;

const GOOD: &str = r#"
    cluster_id = "prod"
    cluster_secret = "0123456789abcdef"
    [server]
    id = 2
    data_dir = "/var/lib/muster"
    api_listen = "127.0.0.1:7070"
    peer_listen = "[::1]:0"
    [[servers]]
    id = 1
    peer_address = "s1:7071"
    api_address = "s1:7070"
    [[servers]]
    id = 2
    peer_address = "10.0.0.2:7071"
    api_address = "[2001:db8::2]:7070"
    [[tokens]]
    kind = "operator"
    token = "operator-operator"
    [[tokens]]
    kind = "tenant"
    name = "acme"
    token = "acme-acme-acme-acme"
    [[tenants]]
    name = "acme"
    gpu_milli_max = 8000
    priority_max = 300
    [reservations]
    after_ms = 900000
    [timing]
    lease_ms = 2000
"#;

/// Paths of the faults that `text` has.
fn faults(text: &str) -> Vec<String> {
    match Config::from_toml(text) {
        Ok(_) => Vec::new(),
        Err(ConfigError(faults)) => faults.into_iter().map(|fault| fault.path).collect(),
    }
}

#[test]
fn a_good_file_is_read_whole() {
    let config = Config::from_toml(GOOD).expect("has no fault");
    assert_eq!(config.cluster.id.as_str(), "prod");
    assert_eq!(config.server.id, 2);
    assert_eq!(config.cluster.servers.len(), 2);
    assert_eq!(config.cluster.timing.lease_ms, 2_000);
    let promised = Reserve { after: DurationMs(900_000), most: Reserve::MOST_USUAL };
    assert_eq!(config.cluster.reservations.rules(), promised);
    assert_eq!(config.cluster.timing.election_ms_max, Timing::default().election_ms_max);
    let quota = config.cluster.tenants[0].quota;
    assert_eq!((quota.gpu_milli_max, quota.priority_max), (8_000, Priority(300)));
    assert!(!format!("{config:?}").contains("acme-acme"), "secrets must not show");
}

#[test]
fn every_fault_is_told_at_once() {
    let bad = GOOD
        .replace("127.0.0.1:7070", "0.0.0.0:7070")
        .replace("id = 2\n    data_dir", "id = 9\n    data_dir")
        .replace("s1:7071", "s1")
        .replace("\"tenant\"", "\"tenants\"")
        .replace("operator-operator", "short")
        .replace("after_ms = 900000", "after_ms = 2592000001\n    most = 65")
        .replace("lease_ms = 2000", "lease_ms = 1\n    election_ms_min = 700")
        .replace("name = \"acme\"\n    gpu", "name = \"../acme\"\n    gpu");
    let mut found = faults(&bad);
    found.sort();
    let expected = [
        "reservations.after_ms",
        "reservations.most",
        "server.api_address",
        "server.api_listen",
        "servers",
        "servers[0].peer_address",
        "tenants[0].name",
        "timing.election_ms_max",
        "timing.lease_ms",
        "tokens[0].token",
        "tokens[1].kind",
    ];
    assert_eq!(found, expected);
}

#[test]
fn unknown_keys_and_missing_secrets_are_refused() {
    assert_eq!(faults(&GOOD.replace("[timing]", "[timings]")), ["the file"]);
    assert_eq!(faults(&GOOD.replace("id = 2\n    peer", "id = -2\n    peer")), ["the file"]);
    assert_eq!(faults(&GOOD.replace("cluster_secret", "# cluster_secret")), ["cluster_secret"]);
    assert_eq!(
        faults(&GOOD.replace("kind = \"operator\"", "kind = \"tenant\"\n name = \"x\"")),
        ["tokens"]
    );
    assert_eq!(faults(&GOOD.replace("\"prod\"", "\"\"")), ["cluster_id"]);
    assert_eq!(faults(&GOOD.replace("s1:7070", "s1:7071")), ["servers[0].api_address"]);
}

#[test]
fn the_playground_needs_no_secrets() {
    assert_eq!(Config::dev(1, "/tmp/x").check(), Ok(()));
    let mut exposed = Config::dev(1, "/tmp/x");
    exposed.cluster.insecure_dev = false;
    exposed.server.api_listen = "0.0.0.0:1".parse().expect("an address");
    let found = exposed.check().expect_err("is exposed").0;
    assert_eq!(found[0].path, "server.api_listen");
    exposed.cluster.insecure_dev = true;
    let found = exposed.check().expect_err("cannot be dialled").0;
    assert_eq!(found[0].path, "server.api_address");
    exposed.server.api_address = Some("10.0.0.1:1".to_owned());
    assert_eq!(exposed.check(), Ok(()));
}

#[test]
fn addresses() {
    for good in ["a:1", "s-1.example.org:7070", "127.0.0.1:65535", "[::1]:80"] {
        assert!(is_address(good), "{good}");
    }
    for bad in ["", "a", "a:", ":1", "a:0", "a:65536", "a b:1", "http://a:1", "::1:80", "[x]:1"] {
        assert!(!is_address(bad), "{bad}");
    }
}
