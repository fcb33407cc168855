//! One path against an other end that answers, or does not.

use super::*;

/// Over IPv4 and a link of 1,500.
const LINK: u16 = 1_472;

fn path() -> PathState {
    PathState::new(28, at(0))
}

fn fits(question: Question, len_max: u16) -> bool {
    question.datagram_len.is_none_or(|len| len <= len_max)
}

fn at(milliseconds: u64) -> Instant {
    Instant::from_nanos(milliseconds * 1_000_000)
}

/// Runs the path from `from` to `to` (milliseconds); the far end answers after 10 ms while
/// `answers` says so. Returns every change with its time.
fn run(
    path: &mut PathState,
    from: u64,
    to: u64,
    answers: impl Fn(u64, Question) -> bool,
) -> Vec<(u64, Change)> {
    run_under(path, from, to, (Pace::BUSY, |_, _| ()), answers)
}

/// The same without traffic.
fn run_idle(
    path: &mut PathState,
    from: u64,
    to: u64,
    answers: impl Fn(u64, Question) -> bool,
) -> Vec<(u64, Change)> {
    run_under(path, from, to, (Pace::CLOSE, |_, _| ()), answers)
}

/// The same while `load` does what traffic does.
fn run_under(
    path: &mut PathState,
    from: u64,
    to: u64,
    (pace, load): (Pace, impl Fn(&mut PathState, u64)),
    answers: impl Fn(u64, Question) -> bool,
) -> Vec<(u64, Change)> {
    let mut changes = Vec::new();
    let mut replies: Vec<(u64, u64)> = Vec::new();
    let mut token = from * 1000;
    for now in from..to {
        load(path, now);
        for (due, answered) in core::mem::take(&mut replies) {
            if due > now {
                replies.push((due, answered));
                continue;
            }
            let change = path.answered(answered, at(now));
            changes.extend((change != Change::None).then_some((now, change)));
        }
        let next = || {
            token += 1;
            token
        };
        let (change, question) = path.tick(at(now), pace, next);
        changes.extend((change != Change::None).then_some((now, change)));
        if let Some(question) = question.filter(|question| answers(now, *question)) {
            replies.push((now + 10, question.token));
        }
    }
    changes
}

#[test]
fn a_working_path_comes_up_within_one_round_trip_and_uses_its_full_size_after_another() {
    let mut path = path();
    let changes = run(&mut path, 0, 500, |_, question| fits(question, LINK));
    assert_eq!(changes, [(10, Change::Alive), (21, Change::Size)]);
    assert_eq!(path.round_trip(), Some(Duration::from_millis(10)));
    assert_eq!(path.packet_len(), (1_500, false), "more may pass");
    run(&mut path, 500, 3_000, |_, question| fits(question, LINK));
    assert_eq!(path.packet_len(), (1_500, true));
}

#[test]
fn an_idle_path_that_is_cut_dies_within_three_seconds() {
    let mut worst = 0;
    let cases = (5_000..7_000).step_by(50);
    for (begin, pace) in cases.flat_map(|begin| [(begin, Pace::CLOSE), (begin, YIELDING)]) {
        let mut path = path();
        run_under(&mut path, 0, begin, (pace, |_, _| ()), |_, _| true);
        let (end, idle) = (begin + 4_000, |_: &mut PathState, _| ());
        let changes = run_under(&mut path, begin, end, (pace, idle), |_, _| false);
        let [(when, Change::Dead)] = changes[..] else {
            panic!("{changes:?}")
        };
        worst = worst.max(when - begin);
    }
    assert!(worst < 3_000, "died after {worst} ms");
}

#[test]
fn a_suspected_path_that_is_cut_dies_within_half_a_second() {
    let mut path = path();
    run(&mut path, 0, 5_000, |_, _| true);
    path.suspect(at(5_000), at(5_000));
    let changes = run(&mut path, 5_000, 9_000, |_, _| false);
    let [(overdue, Change::Overdue), (when, Change::Dead)] = changes[..] else {
        panic!("{changes:?}")
    };
    assert!(overdue <= 5_210, "overdue at {overdue} ms");
    assert!(when < 5_400, "died at {when} ms");
}

#[test]
fn a_suspected_path_gives_way_to_one_that_answers_and_began_to_lately_or_alone() {
    let (mut used, mut spare) = (path(), path());
    run(&mut used, 0, 5_000, |_, _| true);
    run(&mut spare, 0, 5_000, |_, _| true);
    for path in [&mut used, &mut spare] {
        path.suspect(at(4_700), at(5_000));
    }
    assert!(!used.is_outdone_by(&spare), "neither has answered");
    run(&mut spare, 5_000, 5_020, |_, _| true);
    run(&mut used, 5_000, 5_020, |_, _| false);
    assert!(!used.is_outdone_by(&spare), "it has had no time to answer");
    let mut new = PathState::new(28, at(5_020));
    run(&mut new, 5_020, 5_040, |_, _| true);
    assert!(used.is_outdone_by(&new), "where the other end is now");
    run(&mut used, 5_020, 5_220, |_, _| false);
    assert!(used.is_outdone_by(&spare), "two answers are missing");
    run(&mut used, 5_220, 5_300, |_, _| true);
    assert!(!used.is_outdone_by(&spare) && !used.is_outdone_by(&new));
}

#[test]
fn a_dead_path_is_retried_and_comes_back_within_its_pace() {
    let mut path = path();
    assert_eq!(run(&mut path, 0, 60_000, |_, _| false), []);
    let changes = run(&mut path, 60_000, 64_000, |_, _| true);
    assert!(matches!(changes[..], [(when, Change::Alive), ..] if when <= 63_010));
}

#[test]
fn a_lost_answer_now_and_then_changes_nothing() {
    let mut path = path();
    run(&mut path, 0, 1_000, |_, _| true);
    let most = |now, _| now % 7 != 0;
    assert_eq!(run(&mut path, 1_000, 120_000, most), []);
}

#[test]
fn a_path_that_swallows_long_datagrams_stays_alive_and_they_are_given_up_within_a_second() {
    for (silent, begin) in [(false, 7_100), (false, 7_450), (true, 7_100)] {
        let mut path = path();
        let load = |path: &mut PathState, now: u64| {
            if now >= 6_100 && now.is_multiple_of(100) {
                path.busy(at(now));
            }
            if silent && now == begin + 400 {
                path.suspect(at(now), at(now));
            }
        };
        run_under(&mut path, 0, begin, (Pace::BUSY, load), |_, question| {
            fits(question, LINK)
        });
        assert_eq!(path.packet_len(), (1_500, true));
        let less = |_, question| fits(question, 1_350);
        let changes = run_under(&mut path, begin, 20_000, (Pace::BUSY, load), less);
        let (when, _) = changes
            .iter()
            .find(|change| change.1 == Change::SizeLost)
            .unwrap();
        assert!(*when < begin + 1_000, "noticed after {} ms", when - begin);
        assert!(changes.iter().all(|change| change.1 != Change::Dead));
        assert_eq!(
            (path.packet_len(), path.datagram_len()),
            ((1_378, true), 1_350)
        );
    }
}

#[test]
fn what_the_interface_refuses_is_not_sent_again_and_what_is_lost_otherwise_proves_nothing() {
    let mut path = path();
    run(&mut path, 0, 3_000, |_, question| fits(question, LINK));
    assert_eq!(path.too_big(1_473, at(3_000)), Change::None);
    assert_eq!(path.too_big(1_472, at(3_000)), Change::SizeLost);
    assert_eq!(path.packet_len(), (1_280, false));
    run(&mut path, 3_000, 6_000, |_, question| fits(question, 1_400));
    assert_eq!(path.packet_len(), (1_428, true));
    // Nothing at all is answered for a while: that is no matter of length.
    run(&mut path, 6_000, 6_800, |_, _| false);
    path.suspect(at(6_800), at(6_800));
    let changes = run(&mut path, 6_800, 7_100, |_, _| false);
    assert!(matches!(changes[..], [(_, Change::Overdue)]), "{changes:?}");
    assert_eq!(path.packet_len(), (1_428, true));
}

const YIELDING: Pace = Pace::CLOSE.yielding();

/// The other end asks every 1.7 s until `until`, and says that it is answered.
fn run_asked(
    path: &mut PathState,
    from: u64,
    to: u64,
    until: u64,
    proven: bool,
) -> (u64, Option<u64>) {
    let asked = core::cell::Cell::new(0);
    let load = |path: &mut PathState, now: u64| {
        if now < until && now.is_multiple_of(1_700) {
            path.asked(proven, YIELDING, at(now));
        }
    };
    let changes = run_under(path, from, to, (YIELDING, load), |now, _| {
        asked.set(asked.get() + 1);
        now < until
    });
    let died = changes.iter().find(|(_, change)| *change == Change::Dead);
    (asked.get(), died.map(|(when, _)| *when))
}

#[test]
fn who_is_asked_need_not_ask_and_notices_all_the_same_when_that_ends() {
    let mut path = path();
    run_idle(&mut path, 0, 6_000, |_, _| true);
    let (asked, died) = run_asked(&mut path, 6_000, 66_000, 66_000, true);
    assert_eq!(died, None);
    // Three for own round trips, one for the length.
    assert!(asked <= 5, "{asked}");
    let (_, died) = run_asked(&mut path, 66_000, 76_000, 66_001, true);
    let died = died.expect("nothing answers");
    assert!(died < 69_000, "died at {died} ms");
}

#[test]
fn who_is_asked_by_one_that_hears_no_answers_asks_itself() {
    let mut path = path();
    run_idle(&mut path, 0, 6_000, |_, _| true);
    run_asked(&mut path, 6_000, 12_000, 12_000, true);
    let (asked, _) = run_asked(&mut path, 12_000, 26_000, 26_000, false);
    assert!(asked >= 7, "{asked}");
    path.suspect(at(26_000), at(26_000));
    path.asked(true, Pace::IDLE, at(26_000));
    assert!(
        path.deadline() <= at(26_000),
        "what is suspected is asked by both"
    );
}

#[test]
fn a_path_whose_round_trips_vary_dies_as_well() {
    let mut path = path();
    // The first answers were late, as on a busy host: the next are waited for longer.
    for (sent, trip) in [(0, 300), (400, 1), (800, 400)] {
        path.ask_now(at(sent));
        let (_, question) = path.tick(at(sent), Pace::CLOSE, || sent + 1);
        assert!(question.is_some(), "nothing asked at {sent} ms");
        path.answered(sent + 1, at(sent + trip));
    }
    assert!(path.is_alive());
    path.suspect(at(1_000), at(1_300));
    let changes = run(&mut path, 1_300, 9_000, |_, _| false);
    let died = changes.iter().find(|(_, change)| *change == Change::Dead);
    let (when, _) = died.expect("it dies");
    assert!(*when < 6_000, "dead after {} ms", when - 1_300);
}

/// A path that works, one of whose ends is behind a translator.
fn translated(this_end: bool) -> PathState {
    let mut path = path();
    let watcher = Watcher {
        is_smaller: true,
        keep: Duration::from_secs(8),
    };
    path.mapping.note_translated(this_end, watcher);
    path.mapping.wanted = (!this_end).then_some(watcher.keep);
    let pace = path.mapping.adapt(Pace::LINK, watcher);
    run_under(&mut path, 0, 60_000, (pace, |_, _| ()), |_, _| true);
    assert!(path.is_alive());
    path
}

#[test]
fn who_is_behind_a_translator_is_hardly_asked_before_its_time() {
    for (mut path, early) in [(translated(false), 250), (path(), 2_000)] {
        run_under(
            &mut path,
            60_000,
            100_000,
            (Pace::LINK, |_, _| ()),
            |_, _| true,
        );
        let due = path.next_probe;
        let before = |ms| Instant::ZERO + (due.since(Instant::ZERO) - Duration::from_millis(ms));
        assert!(!path.is_soon(before(early + 1)));
        assert!(path.is_soon(before(early)));
    }
}

/// A path of a host behind a translator that keeps mappings for 4 s: its watcher, pace and the path.
fn kept_often() -> (PathState, Pace) {
    let watcher = Watcher {
        is_smaller: true,
        keep: Duration::from_secs(4),
    };
    let mut path = path();
    path.mapping.note_translated(true, watcher);
    let pace = path.mapping.adapt(Pace::LINK, watcher);
    run_under(&mut path, 0, 1_000, (pace, |_, _| ()), |_, _| true);
    assert!(path.is_alive());
    path.mapping.asked(pace, at(1_000));
    path.asked(true, pace, at(1_000));
    (path, pace)
}

#[test]
fn mappings_that_live_shorter_than_questions_are_apart_are_kept_by_what_needs_no_answer() {
    let (mut path, pace) = kept_often();
    assert_eq!(pace.alive, Duration::from_secs(8) + pace::YIELD);
    assert_eq!(path.keep_at(), Some(at(5_000)));
    assert!(path.deadline() <= at(5_000));
    assert!(!path.keeps(at(4_999)));
    assert!(path.keeps(at(5_000)));
    assert!(!path.keeps(at(5_001)));
    // The next question comes before it has to be kept again.
    assert_eq!(path.keep_at(), None);
    let silence = path.mapping.asked(pace, at(9_000));
    assert_eq!(silence, Some(Duration::from_secs(4)));
}

#[test]
fn whatever_is_sent_keeps_a_mapping_and_shows_less_of_it() {
    let (mut path, pace) = kept_often();
    path.mapping.sends(at(3_000));
    assert!(!path.keeps(at(6_999)), "it was kept by something else");
    assert!(path.keeps(at(7_000)));
    path.mapping.sends(at(8_000));
    let silence = path.mapping.asked(pace, at(9_000));
    assert_eq!(silence, Some(Duration::from_secs(1)));
    // Of what workers have sent nobody knows when it was.
    path.mapping.disturb();
    assert_eq!(path.mapping.asked(pace, at(17_000)), None);
    // A question of its own that was early, or due, and that nothing else stands for.
    let ask = |path: &mut PathState, ms| {
        path.mapping.asks(ms, true, pace, at(ms));
        path.mapping.answered(ms)
    };
    assert_eq!(
        ask(&mut path, 25_000),
        None,
        "too early to miss the other's"
    );
    let missed = ask(&mut path, 33_250);
    assert_eq!(missed, Some(Duration::from_millis(8_250)));
}

#[test]
fn who_waits_for_a_question_from_outside_does_not_forestall_it() {
    let (path, _) = kept_often();
    assert!((1_000..9_250).all(|ms| !path.is_soon(at(ms))));
}

#[test]
fn where_mappings_turn_out_to_live_shorter_they_are_kept_in_time() {
    let mut path = translated(true);
    let sent = path.next_probe.since(at(0)) - path.interval;
    path.keep_sooner(Duration::from_secs(3));
    let due = path.next_probe.since(at(0));
    assert_eq!(due - sent, Duration::from_secs(3) + pace::YIELD);
    path.keep_sooner(Duration::from_secs(20));
    assert_eq!(path.next_probe.since(at(0)), due, "never later");
    let mut open = translated(false);
    let due = open.next_probe;
    open.keep_sooner(Duration::from_secs(3));
    assert_eq!(open.next_probe, due);
}
