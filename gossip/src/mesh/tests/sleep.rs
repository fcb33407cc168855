//! A host that is suspended, and wakes when the others have long forgotten it.

use crate::api::Path;
use crate::mesh::tcp::tests::{at, world};

#[test]
fn who_slept_for_an_hour_is_back_within_three_seconds() {
    let mut world = world(3, &[]);
    world.run(5);
    world.asleep = Some(2);
    world.run(3_600);
    assert_eq!((world.path(0, 2), world.path(1, 2)), (None, None));
    world.asleep = None;
    world.run(3);
    for (from, to) in [(0, 2), (2, 0), (1, 2), (2, 1)] {
        assert_eq!(
            world.path(from, to),
            Some(Path::Direct(at(to))),
            "{from} to {to}"
        );
    }
}
