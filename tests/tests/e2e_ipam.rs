//! The operator's commands about addresses: what each does, what it refuses, and what it says.

use std::path::Path;
use std::time::{Duration, Instant};

use rmesh_lab::{Container, Host};
use rmesh_tests::ring::{MESH_WITHIN, addresses, attached, json, says, triangle};
use rmesh_tests::story;
use rmesh_tests::story::{INTERFACE, Story, texts};
use serde_json::Value;

/// From the kill on. A peer is only removed when it has been silent for 2.5 s; the command waits for that.
const ALLOCATED_WITHIN: Duration = Duration::from_secs(5);
const RETURNED_WITHIN: Duration = Duration::from_secs(10);

fn ip(container: &Container, words: &[&str]) {
    let output = container.command(Path::new("ip"), words).expect("ip");
    assert!(output.status.success(), "{:?}", texts(&output));
}

fn carries(container: &Container, address: &str) -> bool {
    let nets = container.addresses(INTERFACE).expect("an interface");
    nets.iter().any(|net| net.addr().to_string() == address)
}

#[test]
fn each_command_on_one_host() {
    let mut story = story!("ipamone");
    let a = story.host("a");
    let _router = story.launch(&a, &[]);
    let (web, given) = attached(&story, &a, "web");
    let (web_name, first) = (web.name().to_owned(), given[0].to_string());

    let page = story.succeed(&a, &["ipam", "status"]);
    println!("{page}");
    says(
        &page,
        &[
            "10.32.0.0/12",
            "fd",
            "witnesses   a",
            "one lost    no",
            "have 2 addresses",
        ],
    );
    let view = json(&story, &a, &["ipam", "status"]);
    assert_eq!(view["pools"][0]["size"], 1 << 20);
    assert_eq!(view["pools"][0]["owners"][0]["name"], "a");
    assert_eq!(
        (&view["has_majority"], &view["used"]),
        (&true.into(), &2.into())
    );

    says(
        &story.succeed(&a, &["ipam", "ls"]),
        &[&first, &web_name, "used"],
    );
    let list = json(&story, &a, &["ipam", "ls", "--all"]);
    assert_eq!(list[0]["address"], first.as_str());
    assert_eq!(list[0]["container"], web_name.as_str());

    // One address more, for one that is attached and one that is not.
    assert_eq!(
        story.succeed(&a, &["ipam", "claim", "10.32.7.7", &web_name]),
        "10.32.7.7/12\n"
    );
    assert!(carries(&web, "10.32.7.7"));
    let again = json(&story, &a, &["ipam", "claim", "10.32.7.7", &web_name]);
    assert_eq!(again["attached"], true);
    let db = a.container("db").expect("a container");
    let kept = story.rmesh(&a, &["ipam", "claim", "10.32.7.8", db.name()]);
    says(&texts(&kept).1, &["not attached", "rmesh attach"]);
    says(&story.succeed(&a, &["ipam", "ls"]), &["kept for"]);
    let given = addresses(&story.succeed(&a, &["attach", db.name()]));
    assert!(
        given.contains(&"10.32.7.8".parse().expect("an address")),
        "{given:?}"
    );
    let refusal = story.fail(&a, 1, &["ipam", "claim", "10.32.7.8", &web_name]);
    says(&refusal, &["10.32.7.8", "db"]);

    differences(&story, &a, &web);
    nonsense(&story, &a);
}

/// What was made different on purpose is found, and the command it names mends it.
fn differences(story: &Story, a: &Host, web: &Container) {
    let name = web.name();
    let agree = story.succeed(a, &["ipam", "check"]);
    says(&agree, &["2 containers", "all agree"]);
    let refusal = story.fail(a, 1, &["ipam", "release", "10.32.7.7"]);
    says(
        &refusal,
        &["is carried by", &format!("rmesh detach {name}")],
    );

    ip(web, &["addr", "add", "10.32.9.9/12", "dev", INTERFACE]);
    ip(web, &["addr", "del", "10.32.7.7/12", "dev", INTERFACE]);
    let output = story.rmesh(a, &["ipam", "check"]);
    let (out, err) = texts(&output);
    println!("{out}{err}");
    assert_eq!(output.status.code(), Some(1), "{out}{err}");
    says(
        &out,
        &[
            "10.32.9.9",
            "was not given",
            &format!("rmesh ipam claim 10.32.9.9 {name}"),
            "10.32.7.7",
            "does not carry",
            "rmesh ipam release 10.32.7.7",
        ],
    );
    says(&err, &["2 differences"]);
    let output = story.rmesh(a, &["--json", "ipam", "check"]);
    let view: Value = serde_json::from_str(&texts(&output).0).expect("JSON");
    assert_eq!(
        view["differences"].as_array().map(Vec::len),
        Some(2),
        "{view}"
    );

    story.succeed(a, &["ipam", "claim", "10.32.9.9", name]);
    let released = story.succeed(a, &["ipam", "release", "10.32.7.7"]);
    assert_eq!(released, "released: 10.32.7.7\n");
    says(&story.succeed(a, &["ipam", "check"]), &["all agree"]);
}

fn nonsense(story: &Story, a: &Host) {
    let web = a.container("more").expect("a container");
    let name = web.name();
    let cases: [(i32, &[&str], &[&str]); 12] = [
        (
            1,
            &["ipam", "release", "10.32.200.1"],
            &["10.32.200.1", "not held"],
        ),
        (1, &["ipam", "release", "nosuch"], &["nosuch"]),
        (
            1,
            &["ipam", "release", name],
            &["no address", "rmesh ipam ls"],
        ),
        (1, &["ipam", "claim", "10.32.7.9", "nosuch"], &["nosuch"]),
        (2, &["ipam", "claim", "10.32.0.0", name], &["10.32.0.0"]),
        (2, &["ipam", "claim", "10.32.7.300", name], &["10.32.7.300"]),
        (
            1,
            &["ipam", "claim", "192.0.2.7", name],
            &["outside every pool", "--ip"],
        ),
        (1, &["ipam", "adopt", "nosuch"], &["no peer"]),
        (1, &["rmpeer", "nosuch"], &["no other peer is known"]),
        (2, &["rmpeer", "a"], &["itself"]),
        (
            2,
            &["attach", name, "--subnet", "192.0.2.0/24"],
            &["192.0.2.0/24", "10.32.0.0/12"],
        ),
        (
            2,
            &["attach", name, "--subnet", "10.32.0.1/12"],
            &["10.32.0.0/12"],
        ),
    ];
    for (code, words, expected) in cases {
        let start = Instant::now();
        let refusal = story.fail(a, code, words);
        println!("{words:?}: {refusal}");
        says(&refusal, expected);
        story.expect_took(Duration::from_secs(1), "a refusal", start.elapsed());
    }
    let left = json(story, a, &["ipam", "ls"]);
    let leaked = left.as_array().expect("a list").iter();
    assert_eq!(
        leaked.filter(|one| one["state"] == "kept").count(),
        0,
        "{left}"
    );
    assert_eq!(
        web.interface_names().expect("names"),
        ["lo"],
        "an interface is left over"
    );
}

/// Whether a returned peer owns the two addresses its container carries, and nobody holds any.
fn has_claimed(story: &Story, returned: &Host, others: [&Host; 2]) -> bool {
    let holds_are_over = others.iter().all(|host| {
        let view = json(story, host, &["ipam", "status"]);
        view["held"].as_array().is_some_and(Vec::is_empty)
    });
    let view = json(story, returned, &["ipam", "status"]);
    holds_are_over
        && view["used"] == 2
        && view["has_majority"] == true
        && view["pending"].as_array().is_some_and(Vec::is_empty)
}

#[test]
fn the_owner_of_everything_is_removed_by_two_survivors_at_once_and_returns() {
    let mut story = story!("ipamremove");
    let ([a, b, c], mut routers) = triangle(&mut story);
    let (web, given) = attached(&story, &a, "web");
    let (near, _) = attached(&story, &b, "near");
    story.expect_ping(Duration::from_secs(2), &near, given[0]);
    let start = Instant::now();
    let refusal = story.fail(&b, 1, &["rmpeer", "a"]);
    println!("{refusal}");
    says(&refusal, &["a answers", "--force"]);
    story.expect_took(
        Duration::from_secs(2),
        "a living peer is not removed",
        start.elapsed(),
    );

    routers.remove(0).kill();
    let start = Instant::now();
    let removed = std::thread::scope(|scope| {
        let on = |host| {
            let story = &story;
            scope.spawn(move || story.succeed(host, &["rmpeer", "a"]))
        };
        [on(&b), on(&c)].map(|removal| removal.join().expect("a removal"))
    });
    println!("{removed:?}");
    says(&removed.concat(), &["taken over from a", "held"]);
    let mut taken = Vec::new();
    for host in [&b, &c] {
        taken.extend(attached(&story, host, &format!("new{}", host.short_name())).1);
    }
    story.expect_took(
        ALLOCATED_WITHIN,
        "two remove a peer that was just killed, at once, and allocate",
        start.elapsed(),
    );
    assert!(
        taken.iter().all(|address| !given.contains(address)),
        "{taken:?} {given:?}"
    );
    assert!(
        carries(&web, &given[0].to_string()),
        "a killed router's container keeps its address"
    );
    let again = story.succeed(&b, &["rmpeer", "a"]);
    says(&again, &["nothing to take over"]);
    let held = [&b, &c]
        .map(|host| story.succeed(host, &["ipam", "ls"]))
        .concat();
    println!("{held}");
    says(&held, &[&given[0].to_string(), "held for a"]);

    // It returns with its old disk, and what its container carries is granted back to it.
    routers.push(story.launch(&a, &[]));
    story.expect_within(
        RETURNED_WITHIN,
        "a removed peer has claimed what its containers carry",
        || has_claimed(&story, &a, [&b, &c]),
    );
    println!("{}", story.succeed(&a, &["ipam", "status"]));
    says(&story.succeed(&a, &["ipam", "check"]), &["all agree"]);
    let same = addresses(&story.succeed(&a, &["attach", web.name()]));
    assert_eq!(same, given);
    story.expect_ping(Duration::from_secs(2), &near, given[0]);
    // It gets more, of what the others own now.
    attached(&story, &a, "more");
}

#[test]
fn a_hold_ends_by_hand_and_the_address_is_another_containers() {
    let mut story = story!("ipamhold");
    let ([a, b, c], mut routers) = triangle(&mut story);
    let (_web, given) = attached(&story, &c, "web");
    let address = given[0].to_string();
    story.expect_within(
        Duration::from_secs(2),
        "the others know of the container",
        || {
            [&a, &b].iter().all(|host| {
                let all = story.succeed(host, &["ipam", "ls", "--all"]);
                all.contains(&address)
            })
        },
    );
    routers.remove(2).kill();
    let text = story.succeed(&b, &["rmpeer", "c", "--force"]);
    println!("{text}");
    says(&text, &["2 of them", "held"]);
    let near = b.container("near").expect("a container");
    let refusal = story.fail(&b, 1, &["ipam", "claim", &address, near.name()]);
    says(
        &refusal,
        &[
            &address,
            "held for the removed peer c",
            "rmesh ipam release",
        ],
    );
    let elsewhere = story.fail(&a, 1, &["ipam", "release", &address]);
    println!("{elsewhere}");
    says(&elsewhere, &["it is b's: run the command there"]);
    let page = story.succeed(&b, &["ipam", "status"]);
    println!("{page}");
    says(
        &page,
        &[
            &format!("held        {address} for c"),
            &format!("rmesh ipam release {address}"),
        ],
    );
    story.succeed(&b, &["ipam", "release", &address]);
    story.succeed(&b, &["ipam", "claim", &address, near.name()]);
    let given = addresses(&story.succeed(&b, &["attach", near.name()]));
    assert!(
        given.contains(&address.parse().expect("an address")),
        "{given:?}"
    );
}

#[test]
fn with_two_hosts_only_force_removes_and_the_risk_is_named_before() {
    let mut story = story!("ipamtwo");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    let first = story.launch(&a, &[]);
    let second = story.launch(&b, &[ab.address(&a, false)]);
    story.expect_mesh(MESH_WITHIN, &[&first, &second]);
    story.expect_within(MESH_WITHIN, "both own addresses", || {
        let view = json(&story, &b, &["ipam", "status"]);
        view["pools"][0]["owners"].as_array().map(Vec::len) == Some(2)
    });
    let page = story.succeed(&b, &["ipam", "status"]);
    println!("{page}");
    says(&page, &["one lost    no"]);
    // a founded, so it is the only witness.
    first.kill();
    let refusal = story.fail(&b, 1, &["rmpeer", "a"]);
    println!("{refusal}");
    says(&refusal, &["may be given twice", "rmesh rmpeer a --force"]);
    let output = story.rmesh(&b, &["rmpeer", "a", "--force"]);
    let (out, err) = texts(&output);
    println!("{out}{err}");
    assert!(output.status.success(), "{out}{err}");
    says(&err, &["warning", "may be given twice"]);
    says(&out, &["taken over from a"]);
    let view = json(&story, &b, &["ipam", "status"]);
    assert_eq!(view["has_majority"], true, "{view}");
    assert_eq!(view["pools"][0]["owners"][0]["name"], "b");
    // The name is still known, and so is the peer by its id.
    says(
        &story.succeed(&b, &["rmpeer", "a"]),
        &["nothing to take over"],
    );
    attached(&story, &b, "web");
}

#[test]
fn bad_words_at_launch_are_refused_at_once() {
    let mut story = story!("ipamwords");
    let a = story.host("a");
    let cases: [(&[&str], &str); 5] = [
        (&["launch", "--cidr", "10.32.0.0/33"], "10.32.0.0/33"),
        (&["launch", "--cidr", "10.32.0.1/12"], "10.32.0.0/12"),
        (&["launch", "--cidr", "fd32::/48"], "--cidr6"),
        (&["launch", "--subnet", "10.32.0.0"], "10.32.0.0"),
        (&["launch", "--init-peers", "0"], "init-peers"),
    ];
    for (words, expected) in cases {
        says(&story.fail(&a, 2, words), &[expected]);
    }
    let nobody = story.fail(&a, 1, &["ipam", "status"]);
    says(&nobody, &["rmesh launch"]);
}

#[test]
fn before_there_is_a_ring_every_command_says_what_it_waits_for() {
    let mut story = story!("ipamnone");
    let a = story.host("a");
    let _router = story.launch_with(&a, &["192.0.2.1"], &[]);
    let web = a.container("web").expect("a container");
    let page = story.succeed(&a, &["ipam", "status"]);
    println!("{page}");
    says(&page, &["ring        none yet", "waiting"]);
    let start = Instant::now();
    for words in [
        &["--timeout", "1500ms", "attach", web.name()][..],
        &[
            "--timeout",
            "1500ms",
            "ipam",
            "claim",
            "10.32.0.7",
            web.name(),
        ],
        &["--timeout", "2500ms", "rmpeer", "aaaaaa"],
    ] {
        let refusal = story.fail(&a, 1, words);
        println!("{words:?}: {refusal}");
        assert!(
            refusal.contains("no ring yet") || refusal.contains("no peer"),
            "{refusal}"
        );
    }
    story.expect_took(Duration::from_secs(5), "three refusals", start.elapsed());
    says(&story.succeed(&a, &["ipam", "check"]), &["all agree"]);
}
