//! What differs from kernel to kernel, done the way of an older one on this one. `tests/guest.sh` runs the whole suite under
//! kernels that really are older.

use crate::sandbox::{Box, Live, alone, launch_on};
use bulkhead::sandbox::*;
use bulkhead::security::HostFeatures;

#[test]
fn the_mounts_of_older_kernels_are_the_same() {
    alone("kernels::the_mounts_of_older_kernels_are_the_same", || {
        let root = Box::new();
        let mut bundle = root.bundle(&[
            "sh",
            "-c",
            "echo x > /made; stat -c '%n %u %a %t:%T' / /plain /made /dev/g; \
            grep -c . /proc/mounts; grep -c ' / overlay .*nodev.*volatile' /proc/mounts",
        ]);
        bundle.devices = vec![Device {
            target: "/dev/g".to_owned(),
            block: true,
            number: (7, 3),
            mode: 0o640,
            owner: (0, 6),
            access: "rw".to_owned(),
        }];
        let seen = |detached_layers| {
            let host = HostFeatures { detached_layers, ..Launch::look().clone() };
            launch_on(&bundle, &host).map_or_else(|error| (-1, error.message), Live::end)
        };
        let (code, text) = seen(false);
        assert!(code == 0 && text.contains("/dev/g 0 640 7:3") && text.ends_with("\n1\n"), "{text}");
        if Launch::look().detached_layers {
            assert_eq!(seen(true), (code, text));
        }
    });
}
