//! Texts that are understood, and what is said of those that are not.

use super::*;
use proptest::prelude::*;

fn fault(text: &str) -> (usize, usize, String) {
    match Script::parse(text) {
        Err(Fault { line, column, what }) => (line, column, what),
        Ok(script) => panic!("understood: {script:?}"),
    }
}

#[test]
fn faults_name_place_and_what_was_expected() {
    let fleet = "fleet nodes=4 sites=2\n";
    for (line, column, part) in [
        ("flet nodes=3", 1, "expected one of fleet"),
        ("at 5x kill leader", 4, "expected a time such as 90s"),
        ("at 5s kill king", 12, "expected leader, found \"king\""),
        ("at 5s lose site=s9", 17, "no node of the fleet"),
        ("at 5s lose planet=s9", 12, "expected site="),
        ("at 5s lose node=4", 17, "a number from 0 to 3"),
        ("at 5s submit ray", 17, "gpus= is missing"),
        ("at 5s submit ray gpus=7 per=2", 23, "cannot be dealt out evenly"),
        ("at 5s submit ray gpus=8 gpus=8", 25, "stands there twice"),
        ("at 5s submit ray gpus=8 colour=red", 25, "expected one of name"),
        ("at 5s submit ray gpus=1 share=50%", 31, "does not go with"),
        ("at 5s cancel nobody", 14, "no job above"),
        ("at 5s scale nobody replicas=3", 13, "no job above"),
        ("at 5s clock server=3 ahead 1h", 20, "a number from 0 to 2"),
        ("at 5s clock server=1 fast 1h", 22, "one of ahead, behind"),
        ("at 5s heal king", 12, "expected site="),
        ("at 5s submit ray gpus=8 crashing=5%", 36, "work=, without which"),
        ("at 5s submit ray gpus=8 max=0", 29, "a number from 1"),
        ("tenant acme gpus=many", 18, "a number from 0"),
        ("load like=summit jobs=3", 11, "one of openb, philly, kalos"),
        ("load like=openb", 16, "jobs= is missing"),
        ("fleet like=summit nodes=3", 12, "one of openb, global"),
        ("start process=3..4", 15, "expected a time"),
        ("start process=9s..4s", 15, "ends before it begins"),
        ("start process=lognormal(4s)", 15, "lognormal(4s,0.5)"),
        ("start failing=2", 15, "a share such as 2%"),
        ("start failing=200%", 15, "at most 100%"),
        ("network home=s7", 14, "no node of the fleet"),
        ("policy wonderful", 8, "wonderful"),
        ("at 1s cut nodes=2 for 3s", 19, "cannot be healed"),
        ("expect job ready", 17, "expected within, found the end"),
        ("expect jobs happy = 3", 13, "expected one of submitted"),
        ("expect jobs ready ~ 3", 19, "one of =, <=, >="),
        ("expect findings none today", 22, "expected the end of the line"),
        ("eval", 5, "seeds= is missing"),
        ("eval seeds=0", 12, "a number from 1"),
        ("every 1ms from 0s until 1d submit ray gpus=1", 7, "more than 10000000 jobs"),
        ("until 3s 4s", 10, "expected the end of the line"),
        ("\u{fc}ber alles", 1, "expected one of fleet"),
    ] {
        let (at, col, what) = fault(&format!("{fleet}# a remark\n  \n{line}"));
        assert_eq!((at, col), (4, column), "{line}: {what}");
        assert!(what.contains(part), "{line}: {what}");
    }
    assert_eq!(fault("until 3s").0, 2);
    assert!(fault("until 3s").2.contains("there is no fleet"));
    assert!(fault(&"#".repeat(TEXT_BYTES_MAX + 1)).2.contains("bytes"));
}

#[test]
fn what_is_said_comes_true() {
    let script = Script::parse(
        "fleet nodes=3 gpus_per_node=4 sites=2 rtt=30ms model=A100   # three machines
        start image=20s..60s process=lognormal(4s,0.5) failing=2% stragglers=0.5% times=5 stop=1s
        commit 2ms..8ms
        network home=s0 loss=1% resend=300ms
        network site=s1 one_way=40ms
        servers count=5 election=1s lease=20s
        until 1.5h
        at 0 submit ray gpus=8 per=4 max_rtt=50ms life=exponential(60s) duration=2h min=1
        every 10s from 0s until 1m submit plain share=50% count=2 name=small model=A100
        at 40s lose site=s1 for 10m
        at 41s cut site=s0 for 5s
        at 50s cancel small
        eval seeds=20",
    );
    let script = script.expect("understood");
    assert_eq!(script.seeds(), 20);
    let scenario = script.scenario(3, String::new());
    assert_eq!(scenario.nodes.len(), 3);
    assert_eq!(scenario.arrivals.len(), 1 + 12);
    // Lost, cut, healed, and twelve jobs cancelled.
    assert_eq!(scenario.events.len(), 3 + 12);
    assert_eq!((scenario.start.failing_ppm, scenario.start.straggling_ppm), (20_000, 5_000));
    assert_eq!(scenario.until, Some(TimeMs(5_400_000)));
    let spec = &scenario.arrivals[0].spec;
    assert_eq!((spec.replicas(), spec.groups[0].replicas_min, spec.gpu_milli()), (2, 1, 8_000));
    assert_ne!(
        scenario.arrivals[0].life,
        script.scenario(4, String::new()).arrivals[0].life,
        "lives are drawn by seed"
    );
}

#[test]
fn what_tenants_and_servers_do_comes_true() {
    let script = Script::parse(
        "fleet like=openb nodes=20 seed=3
        tenant acme gpus=16 waiting=5
        at 0s submit ray replicas=2 per=4 min=1 max=9 tenant=acme work=1m crashing=2%
        at 5s scale job replicas=9
        at 6s cut leader for 10s
        at 7s heal leader
        at 8s clock server=2 behind 1.5s
        load like=philly jobs=30 per_hour=60 name=trained",
    );
    let script = script.expect("understood");
    let scenario = script.scenario(1, String::new());
    assert_eq!((scenario.nodes.len(), scenario.arrivals.len()), (20, 31));
    let nature = scenario.arrivals[0].nature.as_ref().expect("one of its own");
    assert_eq!(nature.tenant.as_ref(), scenario.tenants.first().map(|(tenant, _)| tenant));
    assert_eq!(nature.work.map(|work| work.crashing_ppm), Some(20_000));
    let quota = scenario.tenants[0].1;
    assert_eq!((quota.gpu_milli_max, quota.pending_jobs_max), (16_000, 5));
    let clock = Happening::Clock { server: 2, ahead_ms: -1_500 };
    let group = scenario.arrivals[0].spec.groups[0].name.clone();
    let scale = Happening::Scale { arrival: 0, group, replicas: 9 };
    let events: Vec<(u64, Happening)> =
        scenario.events.iter().map(|(at, what)| (at.0, what.clone())).collect();
    assert_eq!(
        events,
        [
            (6_000, Happening::CutLeader),
            (16_000, Happening::HealServers),
            (7_000, Happening::HealServers),
            (8_000, clock),
            (5_000, scale),
        ]
    );
    let again = script.scenario(2, String::new());
    let last = |scenario: &Scenario| scenario.arrivals.last().map(|arrival| arrival.at);
    assert_ne!(last(&again), last(&scenario), "loads are drawn by seed");
}

#[test]
fn expectations_tell_what_was_so_instead() {
    let text = "fleet nodes=1
        at 0s submit ray gpus=8
        at 1s submit ray gpus=8 name=second
        expect job ready within 5s
        expect job on 1 node
        expect job second waiting
        expect job second ready within 1s
        expect job third over
        expect jobs submitted = 3
        expect nodes lost <= 0
        expect 50% of second never ready";
    let script = Script::parse(text).expect("understood");
    let verdict = script.evaluate(0, String::new(), &mut crate::observe::Nobody);
    assert_eq!(
        verdict.failures,
        [
            "expect job second ready within 1s: so for 0 of 1 jobs; one is Pending, never ready",
            "expect job third over: so for 0 of 0 jobs",
            "expect jobs submitted = 3: it was 2",
        ]
    );
}

/// Words of the language and some that are not.
fn word() -> impl Strategy<Value = String> {
    let known: Vec<&str> = GRAMMAR.split_whitespace().collect();
    let values =
        ["0", "5s", "1ms..9s", "2%", "node=1", "all", "gpus=8", "site=s0", "-1", "=", "a=b"];
    prop_oneof![
        prop::sample::select(known).prop_map(str::to_owned),
        prop::sample::select(values.to_vec()).prop_map(str::to_owned),
        "[^ \n]{0,9}",
    ]
}

proptest! {
    #[test]
    fn any_line_is_understood_or_refused_where_it_stands(
        words in prop::collection::vec(word(), 0..9),
    ) {
        let text = format!("fleet nodes=2 sites=2\nat 0s submit plain gpus=1\n{}", words.join(" "));
        if let Err(fault) = Script::parse(&text) {
            let width = text.lines().nth(fault.line - 1).unwrap_or_default().chars().count();
            prop_assert!((1..=width + 1).contains(&fault.column), "{fault}");
        }
    }
}
