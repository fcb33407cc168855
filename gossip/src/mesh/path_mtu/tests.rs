use super::*;
use proptest::prelude::*;

const PATIENCE: Patience = Patience {
    answer: Duration::from_millis(250),
    round_trip: Duration::from_millis(10),
};

fn at(milliseconds: u64) -> Instant {
    Instant::from_nanos(milliseconds * 1_000_000)
}

/// A search over a path on which short questions are always answered.
struct Scene {
    search: PathMtu,
    now: u64,
    token: u64,
    questions: u64,
    answers: Vec<(u64, u64)>,
}

impl Scene {
    fn new(headers: u16) -> Self {
        Scene {
            search: PathMtu::new(headers, at(0)),
            now: 0,
            token: 0,
            questions: 0,
            answers: Vec::new(),
        }
    }

    /// Goes on until `until` ms: questions are answered after 10 ms if `passes` says so.
    fn run(&mut self, until: u64, passes: impl Fn(u64, u16) -> bool) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        while self.now < until {
            let now = self.now;
            let is_due = |answer: &mut (u64, u64)| answer.0 == now;
            for (_, token) in self.answers.extract_if(.., is_due) {
                outcomes.extend(
                    self.search
                        .answered(token, at(now))
                        .map(|(_, outcome)| outcome),
                );
            }
            let shorts = Shorts {
                answered: Some(at(now)),
                missing: None,
            };
            outcomes.push(self.search.judge(at(now), PATIENCE, shorts));
            let token = self.token;
            if let Some((token, len, _)) = self.search.ask(at(now), PATIENCE, || token) {
                self.token += 1;
                self.questions += 1;
                self.answers
                    .extend(passes(now, len).then_some((now + 10, token)));
            }
            self.now += 1;
        }
        outcomes.retain(|outcome| *outcome != Outcome::Same);
        outcomes
    }

    fn packet_len(&self) -> (u16, bool) {
        (self.search.packet_len(), self.search.is_found())
    }
}

#[test]
fn the_search_ends_at_every_limit() {
    for headers in [28, 48] {
        for limit in PACKET_LEN_BASE..=9_000 {
            let mut scene = Scene::new(headers);
            while !scene.search.is_found() {
                scene.run(scene.now + 10, |_, len| len + headers <= limit);
                assert!(scene.now < 15_000, "{limit} is not found");
                assert!(scene.search.packet_len() <= limit);
            }
            assert_eq!(scene.packet_len(), (limit, true));
            let usual = USUAL.contains(&limit);
            assert!(
                !usual || scene.now < 4_000,
                "{limit} after {} ms",
                scene.now
            );
            assert!(
                scene.questions < 90,
                "{limit} took {} questions",
                scene.questions
            );
        }
    }
}

/// Packets that are longer than what is left, once the shortest that is assumed was lost, are a black hole's.
#[test]
fn the_search_goes_on_below_what_is_assumed() {
    for headers in [28, 48] {
        for limit in PACKET_LEN_FLOOR..PACKET_LEN_BASE {
            let mut scene = Scene::new(headers);
            while scene.search.packet_len() > limit {
                scene.run(scene.now + 10, |_, len| len + headers <= limit);
                assert!(scene.now < 1_500, "{limit} is not kept to");
            }
            while !scene.search.is_found() {
                scene.run(scene.now + 10, |_, len| len + headers <= limit);
                assert!(scene.now < 15_000, "{limit} is not found");
                assert!(scene.search.packet_len() <= limit);
            }
            assert_eq!(scene.packet_len(), (limit, true));
            assert!(scene.questions < 90, "{}", scene.questions);
        }
    }
}

#[test]
fn a_path_in_use_that_carries_less_than_assumed_from_now_on_is_left_in_time() {
    let mut scene = Scene::new(28);
    scene.run(5_000, |_, len| len + 28 <= 1_500);
    assert_eq!(scene.packet_len(), (1_500, true));
    let began = scene.now;
    while scene.search.packet_len() > 1_000 {
        scene.search.busy(at(scene.now));
        scene.run(scene.now + 10, |_, len| len + 28 <= 1_000);
    }
    assert!(scene.now - began < 2_000, "{} ms", scene.now - began);
    scene.run(scene.now + 10_000, |_, len| len + 28 <= 1_000);
    assert_eq!(scene.packet_len(), (1_000, true));
}

#[test]
fn a_path_that_carries_less_than_all_that_is_assumed_is_never_called_searched() {
    let mut scene = Scene::new(28);
    assert_eq!(scene.run(60_000, |_, _| false), [Outcome::Fell]);
    assert_eq!(scene.packet_len(), (PACKET_LEN_FLOOR, false));
    assert!(scene.questions < 250, "{}", scene.questions);
}

#[test]
fn a_path_that_gets_better_is_used_soon_and_one_that_does_not_is_asked_less_and_less() {
    let mut scene = Scene::new(28);
    scene.run(5_000, |_, len| len + 28 <= 1_400);
    assert_eq!(scene.packet_len(), (1_400, true));
    scene.run(15_000, |_, len| len + 28 <= 1_500);
    assert_eq!(scene.packet_len(), (1_500, true));
    scene.run(3_600_000, |_, len| len + 28 <= 1_500);
    scene.questions = 0;
    assert_eq!(scene.run(7_200_000, |_, len| len + 28 <= 1_500), []);
    // One a minute for what is in use, and six times in the hour those of a search.
    assert!((60..160).contains(&scene.questions), "{}", scene.questions);
    scene.search.search_again(at(scene.now));
    scene.run(scene.now + 1_000, |_, len| len + 28 <= 9_000);
    assert_eq!(scene.search.packet_len(), 9_000);
}

#[test]
fn what_the_kernel_refuses_ends_the_search_at_once() {
    let mut scene = Scene::new(28);
    let mut refused = 0;
    for now in 0..100 {
        let token = now;
        if let Some((token, len, _)) = scene.search.ask(at(now), PATIENCE, || token) {
            if len <= 1_472 {
                scene.search.answered(token, at(now));
            } else {
                scene.search.refused(len, at(now));
                refused += 1;
            }
        }
    }
    assert_eq!((scene.packet_len(), refused), ((1_500, true), 3));
}

proptest! {
    /// Whatever was not asked is no answer.
    #[test]
    fn invented_answers_change_nothing(tokens in prop::collection::vec(1_000u64.., 1..100)) {
        let mut scene = Scene::new(28);
        scene.run(100, |_, len| len <= 1_472);
        let before = alloc::format!("{:?}", scene.search);
        for token in tokens {
            prop_assert_eq!(scene.search.answered(token, at(100)), None);
        }
        prop_assert_eq!(alloc::format!("{:?}", scene.search), before);
    }

    /// A quarter of the questions lost: never more than the path carries, and all of it after the
    /// next search.
    #[test]
    fn losses_cost_time_only(seed in any::<u64>(), limit in 1_280u16..9_000) {
        let mut scene = Scene::new(28);
        let lost = |now: u64| (now ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 62 == 0;
        for second in 1..30 {
            scene.run(second * 1_000, |now, len| len + 28 <= limit && !lost(now));
            prop_assert!(scene.search.packet_len() <= limit);
        }
        scene.search.search_again(at(scene.now));
        scene.run(scene.now + 20_000, |_, len| len + 28 <= limit);
        prop_assert_eq!(scene.search.packet_len(), limit);
    }
}
