//! What an endpoint costs.

use super::{new_namespace, on_host, port, request};
use crate::network::{attach, detach, plan};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Median of a series, in microseconds.
fn median(mut series: Vec<Duration>) -> u128 {
    series.sort();
    series[series.len() / 2].as_micros()
}

#[test]
#[ignore = "a measurement: cargo test --lib network::tests::cost -- --ignored --nocapture"]
#[expect(clippy::print_stderr, reason = "the result of a measurement")]
fn an_endpoint_with_a_published_port_costs_this() {
    on_host(|host| {
        let (mut planned, mut attached, mut detached) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..60 {
            let request = request(&[port("0:80")]);
            let namespace = new_namespace();
            let start = Instant::now();
            let endpoint = plan(&request, &host.paths).unwrap();
            planned.push(start.elapsed());
            let start = Instant::now();
            let done = attach(endpoint, Some(namespace.as_fd()), &host.paths).unwrap();
            attached.push(start.elapsed());
            let start = Instant::now();
            detach(&request.id, &host.paths).unwrap();
            detached.push(start.elapsed());
            drop(done);
        }
        eprintln!("plan {} us, attach {} us, detach {} us", median(planned), median(attached), median(detached));
    });
}
