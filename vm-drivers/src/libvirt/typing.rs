//! Key presses and releases as the chords `virsh send-key` takes: it presses some keys together and
//! lets go of all of them.
//!
//! A key that is held while others are struck goes with each of their chords; one that was pressed
//! and let go with nothing in between is a chord of its own. So `leftCtrl` held over two letters
//! reaches the guest as two chords, with the key let go in between.

use crate::keys::{Key, KeyEvent};

/// Keys pressed together, in the order of pressing.
pub type Chord = Vec<Key>;

/// What is held down between two calls.
#[derive(Debug, Default)]
pub struct Held {
    /// With whether a chord has had it already.
    keys: Vec<(Key, bool)>,
}

impl Held {
    /// The chords these presses and releases make.
    pub fn chords(&mut self, events: &[KeyEvent]) -> Vec<Chord> {
        let mut chords = Vec::new();
        for event in events {
            if event.down {
                if !self.keys.iter().any(|(key, _)| *key == event.key) {
                    self.keys.push((event.key, false));
                }
                continue;
            }
            let Some(at) = self.keys.iter().position(|(key, _)| *key == event.key) else {
                continue;
            };
            if !self.keys[at].1 {
                chords.push(self.keys.iter().map(|(key, _)| *key).collect());
                for (_, used) in &mut self.keys {
                    *used = true;
                }
            }
            self.keys.remove(at);
        }
        chords
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down(key: Key) -> KeyEvent {
        KeyEvent { key, down: true }
    }

    fn up(key: Key) -> KeyEvent {
        KeyEvent { key, down: false }
    }

    #[test]
    fn held_keys_go_with_each_stroke() {
        use Key::*;
        let mut held = Held::default();
        let strokes =
            [down(LeftShift), down(A), up(A), down(B), up(B), up(LeftShift), down(C), up(C)];
        assert_eq!(held.chords(&strokes), [vec![LeftShift, A], vec![LeftShift, B], vec![C]]);
        // Over several calls, as `<leftCtrlOn>` does.
        assert!(held.chords(&[down(LeftCtrl)]).is_empty());
        assert_eq!(held.chords(&[down(X), up(X)]), [vec![LeftCtrl, X]]);
        assert!(held.chords(&[up(LeftCtrl)]).is_empty());
        // Alone, and all at once.
        assert_eq!(held.chords(&[down(LeftSuper), up(LeftSuper)]), [vec![LeftSuper]]);
        let reset =
            [down(LeftCtrl), down(LeftAlt), down(Delete), up(Delete), up(LeftAlt), up(LeftCtrl)];
        assert_eq!(held.chords(&reset), [vec![LeftCtrl, LeftAlt, Delete]]);
        // A release of nothing is nothing.
        assert!(held.chords(&[up(A)]).is_empty());
    }
}
