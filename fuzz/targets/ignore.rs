#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bulkhead::build::fuzz::ignore(bytes));
