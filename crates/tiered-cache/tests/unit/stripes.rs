//! The stripes in every interleaving: shuttle stands in for the atomics.

use std::sync::Arc;

use shuttle::sync::Mutex;
use shuttle::thread;

use super::*;

const HASH: u128 = 7;
const SLOT: u8 = 3;

/// A source, and a store that holds what was read from it.
#[derive(Default)]
struct Model {
    source: Mutex<u64>,
    store: Mutex<Option<u64>>,
}

fn check(guarded: bool, flush: bool) {
    let model = move || {
        let (stripes, model) = (Arc::new(Stripes::new()), Arc::new(Model::default()));
        let filler = {
            let (stripes, model) = (Arc::clone(&stripes), Arc::clone(&model));
            thread::spawn(move || {
                let epoch = stripes.epoch(HASH, SLOT);
                let value = *model.source.lock().unwrap();
                let insert = || *model.store.lock().unwrap() = Some(value);
                if guarded {
                    stripes.fill(HASH, epoch, insert, || *model.store.lock().unwrap() = None);
                } else {
                    insert();
                }
            })
        };
        *model.source.lock().unwrap() = 1;
        if flush {
            stripes.flush(SLOT);
            *model.store.lock().unwrap() = None;
        } else {
            stripes.invalidate(HASH, || *model.store.lock().unwrap() = None);
        }
        filler.join().unwrap();
        assert_ne!(*model.store.lock().unwrap(), Some(0), "the old value stayed");
    };
    shuttle::check_dfs(model, None);
}

#[test]
fn in_every_interleaving_an_invalidated_value_goes() {
    check(true, false);
}

#[test]
fn in_every_interleaving_a_flushed_value_goes() {
    check(true, true);
}

#[test]
#[should_panic(expected = "the old value stayed")]
fn without_the_stripes_an_invalidated_value_stays() {
    check(false, false);
}
