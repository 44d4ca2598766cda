//! Tables: what is given, and what comes of it.

use super::*;

fn arguments(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn config(line: &str) -> Config {
    config_with(line, &[])
}

fn config_with(line: &str, pairs: &[(&str, &str)]) -> Config {
    match load(arguments(line), variables(pairs)) {
        Ok(Start::Run(config)) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

fn failure(line: &str) -> Failure {
    failure_with(line, &[])
}

fn failure_with(line: &str, pairs: &[(&str, &str)]) -> Failure {
    match load(arguments(line), variables(pairs)) {
        Err(failure) => failure,
        Ok(start) => panic!("{line} was taken: {start:?}"),
    }
}

fn has_note(config: &Config, part: &str) -> bool {
    config.notes.iter().any(|note| note.message.contains(part))
}

/// A file in a directory that is gone after the test.
fn with_file<T>(text: &str, then: impl FnOnce(&str) -> T) -> T {
    let dir = tempfile::tempdir().expect("a directory for the file");
    let path = dir.path().join("coffer.yml");
    std::fs::write(&path, text).expect("the file is written");
    then(path.to_str().expect("the path is text"))
}

#[test]
fn without_any_argument_a_member_of_its_own_cluster_listens_on_localhost() {
    let config = config("");
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir, PathBuf::from("default.coffer"));
    assert_eq!(config.listen_client_urls[0].text, "http://localhost:2379");
    assert_eq!(config.client_urls(), ["http://localhost:2379"]);
    assert_eq!(config.peer_urls(), ["http://localhost:2380"]);
    let own =
        InitialMember { name: "default".to_owned(), peer_urls: config.initial_advertise_peer_urls.clone() };
    assert_eq!(config.initial_cluster, Ok(vec![own]));
    assert_eq!(config.quota_bytes, Some(2 * 1024 * 1024 * 1024));
    assert_eq!(config.max_request_bytes, 1_572_864);
    assert_eq!(config.grpc_receive_bytes_max(), 1_572_864 + 512 * 1024);
    assert_eq!(config.max_txn_ops, 128);
    assert_eq!(config.request_timeout(), Duration::from_secs(7));
    assert_eq!(config.election_ticks(), 10);
    assert_eq!(config.log.outputs, [LogOutput::Stderr]);
    assert_eq!(config.log.level, LogLevel::Info);
    assert_eq!(config.auto_compaction, None);
    assert_eq!(config.cors, Allowed::Any);
    assert!(config.serving_threads >= 1);
    assert!(has_note(&config, "no peer listener"));
    assert!(!has_note(&config, "without TLS"), "localhost is nobody else's");
}

#[test]
fn a_start_begins_with_the_configuration_under_etcds_names() {
    let config = config(
        "--name=m --snapshot-catchup-entries=1000 --v2-deprecation=gone --corrupt-check-time=90s --cors=http://a:1,http://b:2 \
         --initial-cluster=m=http://localhost:2380 --bootstrap-defrag-threshold-megabytes=1000",
    );
    let told = |name| {
        let mut fields = config.begin.iter().filter(|(field, _)| *field == name);
        let (_, value) = fields.next().unwrap_or_else(|| panic!("{name} is not there"));
        assert!(fields.next().is_none(), "{name} is there twice");
        value.to_string()
    };
    for (name, value) in [
        ("etcd-version", "\"3.7.3\""),
        ("name", "\"m\""),
        ("data-dir", "\"m.coffer\""),
        ("force-new-cluster", "false"),
        ("heartbeat-interval", "\"100ms\""),
        ("election-timeout", "\"1s\""),
        ("snapshot-catchup-entries", "1000"),
        ("listen-client-urls", "[\"http://localhost:2379\"]"),
        ("listen-metrics-urls", "[]"),
        ("cors", "[\"http://a:1\",\"http://b:2\"]"),
        ("host-whitelist", "[\"*\"]"),
        ("initial-cluster", "\"m=http://localhost:2380\""),
        ("quota-backend-bytes", "2147483648"),
        ("corrupt-check-time-interval", "\"1m30s\""),
        ("compact-check-time-interval", "\"1m0s\""),
        ("auto-compaction-retention", "\"0\""),
        ("max-learners", "1"),
        ("v2-deprecation", "\"write-only\""),
    ] {
        assert_eq!(told(name), value, "{name}");
    }
    let unknown: Vec<_> = config.begin.iter().filter(|(_, value)| value.is_null()).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert!(config.notes.iter().any(|note| note.message == "Skipping defragmentation"));
    let deprecated = "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input.";
    assert!(config.notes.iter().any(|note| note.message == deprecated));
}

#[test]
fn arguments_are_read_by_the_rules_of_gos_flag_package() {
    for line in [
        "--max-txn-ops=7",
        "-max-txn-ops=7",
        "--max-txn-ops 7",
        "-max-txn-ops 7",
        "--max-txn-ops=1 --max-txn-ops=7",
    ] {
        assert_eq!(config(line).max_txn_ops, 7, "{line}");
    }
    assert!(config("--socket-reuse-port").socket_reuse_port);
    assert!(!config("--socket-reuse-port --socket-reuse-port=F").socket_reuse_port);
    assert!(!config("--pre-vote=false").pre_vote);
    assert_eq!(
        config("--name --data-dir=x").name,
        "--data-dir=x",
        "a flag that wants a value takes what follows"
    );
    assert_eq!(config("--initial-cluster-token=a=b").initial_cluster_token, "a=b");
    assert_eq!(config("--wal-dir=").wal_dir, None);
    assert_eq!(config("--max-txn-ops=7 --").max_txn_ops, 7);
}

#[test]
fn broken_arguments_end_with_exit_code_2_and_gos_words() {
    for (line, text) in [
        ("--bogus", "flag provided but not defined: -bogus"),
        ("--bogus=1", "flag provided but not defined: -bogus"),
        ("-x", "flag provided but not defined: -x"),
        ("--experimental-bogus", "flag provided but not defined: -experimental-bogus"),
        ("---x", "bad flag syntax: ---x"),
        ("--=x", "bad flag syntax: --=x"),
        ("--name", "flag needs an argument: -name"),
        ("--max-txn-ops=abc", "invalid value \"abc\" for flag -max-txn-ops: parse error"),
        ("--max-txn-ops -1", "invalid value \"-1\" for flag -max-txn-ops: parse error"),
        ("--heartbeat-interval=1s", "invalid value \"1s\" for flag -heartbeat-interval: parse error"),
        ("--pre-vote=maybe", "invalid boolean value \"maybe\" for -pre-vote: parse error"),
        ("--raft-read-timeout=5", "invalid value \"5\" for flag -raft-read-timeout: parse error"),
        ("--quota-backend-bytes=x", "invalid value \"x\" for flag -quota-backend-bytes: parse error"),
        (
            "--max-concurrent-streams=99999999999",
            "invalid value \"99999999999\" for flag -max-concurrent-streams: value out of range",
        ),
        (
            "--initial-cluster-state=foo",
            "invalid value \"foo\" for flag -initial-cluster-state: invalid value",
        ),
        (
            "--feature-gates=Foo=true",
            "invalid value \"Foo=true\" for flag -feature-gates: unrecognized feature gate: Foo",
        ),
        (
            "--cors=foo",
            "invalid value \"foo\" for flag -cors: URL scheme must be http, https, unix, or unixs: foo",
        ),
        (
            "--listen-client-urls=localhost:1",
            "invalid value \"localhost:1\" for flag -listen-client-urls: URL scheme must be http, https, unix, or unixs: localhost:1",
        ),
        (
            "--advertise-client-urls=http://a",
            "invalid value \"http://a\" for flag -advertise-client-urls: URL address does not have the form \"host:port\": http://a",
        ),
    ] {
        let failure = failure(line);
        assert_eq!(failure.exit_code, 2, "{line}");
        assert_eq!(failure.text.lines().next(), Some(text), "{line}");
        assert_eq!(failure.line, None, "{line}");
        assert!(failure.text.contains("--help"), "{line}");
    }
}

#[test]
fn configurations_that_cannot_be_run_end_with_exit_code_1_and_their_reason() {
    for (line, text) in [
        ("foo", "\"foo\" is not a valid flag"),
        ("-", "\"-\" is not a valid flag"),
        ("-- x", "\"x\" is not a valid flag"),
        ("--pre-vote false", "\"false\" is not a valid flag"),
        (
            "--listen-client-urls=http://localhost:4",
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            "--election-timeout=499",
            "--election-timeout[499ms] should be at least as 5 times as --heartbeat-interval[100ms]",
        ),
        (
            "--election-timeout=50001",
            "--election-timeout[50001ms] is too long, and should be set less than 50000ms",
        ),
        ("--heartbeat-interval=0", "--heartbeat-interval must be >0 (set to 0ms)"),
        (
            "--heartbeat-interval=18446744073709551615",
            "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[18446744073709551615ms]",
        ),
        ("--log-format=xml", "unknown log format: xml, supported values json, console"),
        ("--log-level=foo", "unrecognized level: \"foo\""),
        ("--logger=foo", "unknown logger option \"foo\""),
        ("--logger=capnslog", "--logger=capnslog is removed in v3.5"),
        ("--log-outputs=default,stderr", "multi logoutput for \"default\" is not supported yet"),
        ("--auto-compaction-mode=foo", "unknown auto-compaction-mode \"foo\""),
        ("--auto-compaction-retention=x", "error parsing CompactionRetention: time: invalid duration \"x\""),
        (
            "--auto-compaction-retention=-1",
            "error parsing CompactionRetention: time: missing unit in duration \"-1\"",
        ),
        ("--auto-compaction-retention=-1h", "--auto-compaction-retention must not be negative"),
        (
            "--auto-compaction-retention=9223372036854775807",
            "error parsing CompactionRetention: value out of range",
        ),
        (
            "--listen-peer-urls=http://example.com:2380",
            "expected IP in URL for binding (http://example.com:2380)",
        ),
        (
            "--advertise-client-urls=http://:1",
            "--advertise-client-urls \"http://:1\" must be in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" (unexpected empty host (http://:1))",
        ),
        ("--listen-client-urls= --advertise-client-urls=http://a:1", "--listen-client-urls must name a URL"),
        ("--tls-min-version=TLS9", "unexpected TLS version \"TLS9\" (must be one of: TLS1.2, TLS1.3)"),
        ("--compact-hash-check-time=0s", "--compact-hash-check-time must be >0 (set to 0s)"),
        (
            "--feature-gates=LeaseCheckpointPersist=true",
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
        (
            "--discovery-fallback=proxy",
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
        ),
        ("--auth-token=foo", "auth: invalid auth options"),
        ("--grpc-keepalive-interval=-1s", "--grpc-keepalive-interval must not be negative"),
        ("--max-learners=-1", "--max-learners must not be negative"),
        (
            "--wal-segment-bytes-min=4097",
            "--wal-segment-bytes-min must be a multiple of 4096 from 4096 to 1073741824 (set to 4097)",
        ),
        (
            "--wal-segment-bytes-min=8192 --wal-segment-bytes-max=4096",
            "--wal-segment-bytes-min (8192) is above --wal-segment-bytes-max (4096)",
        ),
        ("--client-connections-max=0", "--client-connections-max must be >0"),
        ("--config-file=/no/such/file", "open /no/such/file: No such file or directory (os error 2)"),
    ] {
        let failure = failure(line);
        assert_eq!(failure.exit_code, 1, "{line}");
        assert_eq!(failure.text, text, "{line}");
        assert_eq!(failure.line, Some((LogLevel::Warn, "failed to verify flags")), "{line}");
    }
}

#[test]
fn what_is_wrong_with_the_first_members_is_kept_for_a_first_start() {
    for (line, text) in [
        (
            "--initial-cluster=a=http://localhost:2380",
            "couldn't find local name \"default\" in the initial cluster configuration",
        ),
        (
            "--name=a --initial-cluster=a=http://h:1",
            "--initial-cluster has a=http://h:1 but missing from --initial-advertise-peer-urls=http://localhost:2380",
        ),
        (
            "--name=a --initial-cluster=a=http://h:1 --initial-advertise-peer-urls=http://h:1,http://h:2",
            "--initial-advertise-peer-urls has http://h:2 but missing from --initial-cluster=a=http://h:1",
        ),
        ("--initial-cluster=x", "error setting up initial cluster: \"x\" has not the form \"name=url\""),
        (
            "--initial-cluster=default=http://localhost:2380,b=http://h:1",
            "--initial-cluster names 2 members: a cluster has one member in this version",
        ),
        (
            "--initial-cluster-state=existing",
            "--initial-cluster-state=existing cannot be honoured: joining a cluster is not supported in this version, \
             a cluster has one member",
        ),
        (
            "--initial-cluster=default=h:1",
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: h:1",
        ),
    ] {
        assert_eq!(config(line).initial_cluster, Err(text.to_owned()), "{line}");
    }
}

#[test]
fn what_would_weaken_security_durability_or_membership_is_refused() {
    for line in [
        "--cert-file=a",
        "--key-file=a",
        "--trusted-ca-file=a",
        "--client-cert-auth",
        "--client-crl-file=a",
        "--client-cert-allowed-hostname=a",
        "--auto-tls",
        "--peer-cert-file=a",
        "--peer-key-file=a",
        "--peer-trusted-ca-file=a",
        "--peer-client-cert-auth",
        "--peer-cert-allowed-cn=a",
        "--peer-auto-tls",
        "--peer-crl-file=a",
        "--auth-token=jwt,sign-method=RS256",
        "--discovery=http://x:1",
        "--discovery-token=a",
        "--discovery-endpoints=a",
        "--discovery-srv=a",
        "--force-new-cluster",
        "--proxy=on",
        "--listen-client-urls=https://127.0.0.1:1 --advertise-client-urls=https://127.0.0.1:1",
        "--listen-metrics-urls=https://127.0.0.1:1",
        "--listen-peer-urls=https://127.0.0.1:1",
    ] {
        let failure = failure(line);
        assert_eq!(failure.exit_code, 1, "{line}");
        assert!(failure.text.contains("cannot be honoured"), "{line}: {}", failure.text);
    }
}

#[test]
fn a_refused_flag_at_its_default_is_harmless() {
    let config = config(
        "--auto-tls=false --client-cert-auth=0 --force-new-cluster=false --proxy=off --cert-file= --initial-cluster-state=new",
    );
    assert_eq!(config.name, "default");
}

#[test]
fn what_has_no_effect_and_harms_nobody_is_warned_about() {
    for (line, part) in [
        (
            "--unsafe-no-fsync",
            "--unsafe-no-fsync has no effect: coffer does not acknowledge what is not durable",
        ),
        ("--max-wals=6", "--max-wals has no effect"),
        ("--memory-mlock", "--memory-mlock has no effect"),
        ("--experimental-memory-mlock", "--memory-mlock has no effect"),
        ("--experimental-memory-mlock", "--experimental-memory-mlock is an older name"),
        ("--backend-batch-interval=1s", "--backend-batch-interval has no effect"),
        ("--cipher-suites=TLS_X", "--cipher-suites has no effect"),
        ("--enable-v2", "--enable-v2 has no effect"),
        ("--vv", "--vv has no effect"),
        ("--feature-gates=InitialCorruptCheck=true", "feature gate has no effect"),
        ("--experimental-initial-corrupt-check", "feature gate has no effect"),
        ("--max-snapshots=5", "--max-snapshots is deprecated"),
        ("--log-outputs=systemd/journal", "journal"),
        ("--enable-grpc-gateway", "--enable-grpc-gateway has no effect"),
        ("--quota-backend-bytes=9000000000", "quota exceeds"),
        ("", "'data-dir' was empty; using default"),
        ("", "it isn't recommended to use default name"),
        (
            "--listen-client-urls=http://0.0.0.0:2379 --advertise-client-urls=http://h:2379",
            "without TLS and without authentication",
        ),
        (
            "--listen-client-urls=http://[::]:2379 --advertise-client-urls=http://h:2379",
            "without TLS and without authentication",
        ),
    ] {
        assert!(has_note(&config(line), part), "{line}: {part}");
    }
    let quiet =
        config("--name=m --data-dir=d --snapshot-count=10000 --pre-vote=true --enable-grpc-gateway=false");
    assert!(quiet.notes.iter().all(|note| note.level == NoteLevel::Info), "{:?}", quiet.notes);
}

#[test]
fn every_flag_at_its_default_is_taken() {
    for flag in flags::FLAGS {
        if matches!(flag.name, "config-file" | "version" | "listen-client-urls") {
            continue;
        }
        let line = vec![format!("--{}={}", flag.name, flag.default)];
        assert!(matches!(load(line.clone(), Vec::new()), Ok(Start::Run(_))), "{line:?}");
    }
}

#[test]
fn older_experimental_names_stand_for_their_flag_or_gate() {
    assert_eq!(
        config("--experimental-watch-progress-notify-interval=5s").watch_progress_notify_interval,
        Duration::from_secs(5)
    );
    assert!(config("--experimental-initial-corrupt-check").gate("InitialCorruptCheck"));
    assert!(
        !config("--experimental-txn-mode-write-with-shared-buffer=false")
            .gate("TxnModeWriteWithSharedBuffer")
    );
    let contradiction =
        failure("--experimental-initial-corrupt-check --feature-gates=InitialCorruptCheck=false");
    assert!(
        contradiction.text.contains("say different things about InitialCorruptCheck"),
        "{}",
        contradiction.text
    );
}

#[test]
fn values_reach_their_fields() {
    let config = config(
        "--name=m1 --data-dir=/d --wal-dir=/w --heartbeat-interval=29 --election-timeout=271 \
         --listen-client-urls=http://127.0.0.1:4,unix:///tmp/s --advertise-client-urls=http://b:2,http://a:1 \
         --initial-advertise-peer-urls=http://127.0.0.1:5 --initial-cluster=m1=http://localhost:5 \
         --quota-backend-bytes=-1 --auto-compaction-retention=90m --log-outputs=stdout,/tmp/l --log-level=debug \
         --log-format=console --metrics=extensive --cors=http://o:1 --host-whitelist=b,a --wal-io=sync \
         --grpc-keepalive-interval=0s --serving-threads=3",
    );
    assert_eq!(config.wal_dir, Some(PathBuf::from("/w")));
    assert_eq!((config.heartbeat_interval.as_millis(), config.election_timeout.as_millis()), (29, 271));
    assert_eq!(config.listen_client_urls[1].scheme, Scheme::Unix);
    assert_eq!(config.client_urls(), ["http://a:1", "http://b:2"]);
    assert_eq!(config.quota_bytes, None);
    assert_eq!(config.auto_compaction, Some(AutoCompaction::Periodic(Duration::from_secs(5_400))));
    assert_eq!(config.log.outputs, [LogOutput::Stdout, LogOutput::File(PathBuf::from("/tmp/l"))]);
    assert_eq!((config.log.level, config.log.format), (LogLevel::Debug, LogFormat::Console));
    assert_eq!(config.metrics, MetricsLevel::Extensive);
    assert!(config.cors.allows("http://o:1") && !config.cors.allows("http://p:1"));
    assert!(config.host_whitelist.allows("a") && !config.host_whitelist.allows("c"));
    assert_eq!(config.wal_io, WalIo::Sync);
    assert_eq!(config.serving_threads, 3);
    let revisions =
        self::config("--auto-compaction-mode=revision --auto-compaction-retention=1000").auto_compaction;
    assert_eq!(revisions, Some(AutoCompaction::Revision(1_000)));
    let hours = self::config("--auto-compaction-retention=2").auto_compaction;
    assert_eq!(hours, Some(AutoCompaction::Periodic(Duration::from_secs(7_200))));
}

#[test]
fn variables_set_what_the_command_line_leaves_out() {
    let config = config_with(
        "--name=m",
        &[
            ("ETCD_MAX_TXN_OPS", "9"),
            ("ETCD_PRE_VOTE", "false"),
            ("HOME", "/"),
            ("ETCD_UNSUPPORTED_ARCH", "arm"),
        ],
    );
    assert_eq!(config.max_txn_ops, 9);
    assert!(!config.pre_vote);
    assert!(has_note(&config, "recognized and used environment variable"));
    assert!(!has_note(&config, "unrecognized environment variable"));
    let config = config_with("", &[("ETCD_EXPERIMENTAL_MAX_LEARNERS", "3")]);
    assert_eq!(config.max_learners, 3);
}

#[test]
fn a_variable_beside_its_flag_is_a_conflict() {
    let failure = failure_with("--name=m", &[("ETCD_NAME", "n")]);
    assert_eq!(failure.exit_code, 1);
    let expected = "conflicting environment variable is shadowed by corresponding command-line flag \
                    (either unset environment variable or disable flag))";
    assert_eq!(failure.line, Some((LogLevel::Fatal, expected)));
    assert_eq!(failure.fields, [("environment-variable", "ETCD_NAME".to_owned())]);
}

#[test]
fn a_variable_that_is_no_flag_is_warned_about_and_a_bad_value_is_refused() {
    for pair in [("ETCD_BOGUS", "1"), ("ETCD_max_txn_ops", "1")] {
        let config = config_with("", &[pair]);
        assert!(has_note(&config, "unrecognized environment variable"), "{pair:?}");
        assert_eq!(config.max_txn_ops, 128);
    }
    assert!(has_note(&config_with("", &[("ETCD_VERSION", "3")]), "cannot set special environment variable"));
    let failure = failure_with("", &[("ETCD_MAX_TXN_OPS", "x")]);
    assert_eq!(failure.text, "invalid value \"x\" for ETCD_MAX_TXN_OPS: parse error");
}

/// The shape of the sample that etcd ships, old keys and empty values included.
const SAMPLE: &str = "\
name: 'm'
data-dir:
wal-dir:
snapshot-count: 10000
heartbeat-interval: 50
quota-backend-bytes: 0
listen-client-urls: http://localhost:3379
cors:
discovery:
discovery-fallback: 'proxy'
initial-cluster:
strict-reconfig-check: false
enable-pprof: true
proxy: 'off'
proxy-failure-wait: 5000
client-transport-security:
  cert-file:
  client-cert-auth: false
  auto-tls: false
peer-transport-security:
  cert-file:
  auto-tls: false
self-signed-cert-validity: 1
log-level: debug
log-outputs: [stderr, /tmp/x.log]
force-new-cluster: false
auto-compaction-retention: \"1\"
watch-progress-notify-interval: 5000000000
cipher-suites: [
  TLS_A,
  TLS_B
]
tls-max-version: 'TLS1.3'
no-such-key: 7
";

#[test]
fn a_file_like_etcds_sample_is_taken_and_all_else_ignored() {
    let config = with_file(SAMPLE, |path| {
        config_with(
            &format!("--config-file={path} --max-txn-ops=1"),
            &[("ETCD_NAME", "other"), ("ETCD_BOGUS", "1")],
        )
    });
    assert_eq!(config.name, "m");
    assert_eq!(config.data_dir, PathBuf::from("m.coffer"));
    assert_eq!(config.heartbeat_interval, Duration::from_millis(50));
    assert_eq!(config.listen_client_urls[0].port, 3379);
    assert_eq!(config.max_txn_ops, 128, "arguments beside a file are ignored");
    assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(5));
    assert_eq!(config.log.outputs.len(), 2);
    assert_eq!(config.auto_compaction, Some(AutoCompaction::Periodic(Duration::from_secs(3_600))));
    assert_eq!(config.cors, Allowed::Any);
    assert!(config.notes[0].message.starts_with("loaded server configuration"));
    assert!(has_note(&config, "unknown key in the configuration file"));
    assert!(!has_note(&config, "environment variable\""), "variables beside a file are ignored");
}

#[test]
fn the_file_may_be_named_by_a_variable() {
    let config = with_file("name: v\n", |path| config_with("", &[("ETCD_CONFIG_FILE", path)]));
    assert_eq!(config.name, "v");
    let config = with_file("", |path| config_with("", &[("ETCD_CONFIG_FILE", path)]));
    assert_eq!(config.name, "default");
}

#[test]
fn files_that_cannot_be_run_are_refused() {
    for (text, part) in [
        ("name: [", "error parsing the configuration file"),
        ("- a\n", "it holds no mapping"),
        ("client-transport-security: 7\n", "invalid client-transport-security"),
        ("client-transport-security:\n  cert-file: a\n", "--cert-file=a cannot be honoured"),
        (
            "client-transport-security:\n  client-cert-auth: true\n",
            "--client-cert-auth=true cannot be honoured",
        ),
        (
            "client-transport-security:\n  allowed-hostnames: [a]\n",
            "--client-cert-allowed-hostname=a cannot be honoured",
        ),
        ("peer-transport-security:\n  auto-tls: true\n", "--peer-auto-tls=true cannot be honoured"),
        (
            "peer-transport-security:\n  allowed-cns: [a, b]\n",
            "--peer-cert-allowed-cn=a,b cannot be honoured",
        ),
        ("peer-transport-security:\n  crl-file: x\n", "--peer-crl-file=x cannot be honoured"),
        ("force-new-cluster: true\n", "--force-new-cluster=true cannot be honoured"),
        ("watch-progress-notify-interval: 10m\n", "a duration is a whole number of nanoseconds"),
        ("watch-progress-notify-interval: -1\n", "a duration is a whole number of nanoseconds"),
        ("max-txn-ops: many\n", "invalid value \"many\" for max-txn-ops: parse error"),
        ("feature-gates: Foo=true\n", "unrecognized feature gate: Foo"),
        ("name: {a: b}\n", "neither a text nor a number nor a truth value"),
    ] {
        let failure = with_file(text, |path| failure(&format!("--config-file={path}")));
        assert_eq!(failure.exit_code, 1, "{text}");
        assert!(failure.text.contains(part), "{text}: {}", failure.text);
    }
}

#[test]
fn version_and_help_are_printed_instead_of_serving() {
    let Ok(Start::Print(version)) = load(arguments("--version"), Vec::new()) else {
        panic!("--version printed nothing")
    };
    let lines: Vec<&str> = version.lines().collect();
    assert_eq!(lines[0], "etcd Version: 3.7.3");
    assert!(
        lines[1].starts_with("Git SHA: ")
            && lines[2].starts_with("Go Version: ")
            && lines[3].starts_with("Go OS/Arch: ")
    );
    assert!(lines[4].starts_with("coffer Version: "));
    for line in ["-h", "--help", "--help --bogus", "--name=x -help"] {
        let Ok(Start::Print(help)) = load(arguments(line), Vec::new()) else {
            panic!("{line} printed nothing")
        };
        for flag in flags::FLAGS.iter().filter(|flag| flag.group != flags::Group::Older) {
            assert!(help.contains(&format!("  --{} ", flag.name)), "{}", flag.name);
        }
    }
    assert!(matches!(load(arguments("--version=false"), Vec::new()), Ok(Start::Run(_))));
}

#[test]
fn the_page_on_compatibility_says_what_becomes_of_every_flag() {
    let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compat.md"));
    let sections: Vec<&str> = page.split("\n### ").collect();
    let section = |title: &str| {
        let found = sections.iter().find(|section| section.starts_with(title));
        *found.unwrap_or_else(|| panic!("no section {title:?}"))
    };
    for flag in flags::FLAGS {
        let (title, line) = match flag.effect {
            flags::Effect::Effective => ("Effective", format!("`--{}`", flag.name)),
            flags::Effect::Warned(reason) => {
                ("Read, without effect", format!("| `--{}` | {reason} |\n", flag.name))
            }
            flags::Effect::Refused(reason) => {
                ("Refused unless", format!("| `--{}` | {reason} |\n", flag.name))
            }
        };
        assert!(section(title).contains(&line), "{title}: {line}");
    }
    for (name, meaning) in flags::EXPERIMENTAL {
        let meaning = match meaning {
            flags::Experimental::Flag(flag) => format!("`--{flag}`"),
            flags::Experimental::Gate(gate) => format!("feature gate {gate}"),
        };
        let line = format!("| `--experimental-{name}` | {meaning} |\n");
        assert!(section("Older names").contains(&line), "{line}");
    }
}

proptest::proptest! {
    #[test]
    fn no_argument_variable_or_file_makes_reading_panic(
        arguments in proptest::collection::vec("(--?)?[a-z=,.:/-]{0,12}(name|max-txn-ops|raft-read-timeout|cors|feature-gates|log-outputs|initial-cluster|auto-compaction-retention)?=?.{0,12}", 0..4),
        value in ".{0,24}",
        yaml in "[a-z:\\[\\]{}' \n-]{0,40}",
    ) {
        let name = flags::FLAGS[value.len() % flags::FLAGS.len()].name;
        let variable = format!("ETCD_{}", name.to_ascii_uppercase().replace('-', "_"));
        if name != "config-file" {
            let _ = load(arguments.clone(), vec![(variable, value.clone())]);
            let _ = load(vec![format!("--{name}={value}")], Vec::new());
        }
        let _ = Settings::from_yaml(&format!("{name}: {value}\n{yaml}"));
        let _ = Settings::from_yaml(&yaml);
        let _ = value::duration_ns(&value);
        let _ = value::url(&format!("http://{value}"));
    }
}
