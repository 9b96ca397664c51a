//! Typing at a machine before anything listens on its network: the field's tokens, and waits on
//! what the guest says or shows instead of on time.
//!
//! ```text
//!   "<esc><wait>linux <leftShiftOn>a<leftShiftOff> <waitSerial 'login:' 90s><enter>"
//!        │     │        │                             │
//!   named key  1 s   held keys                  a wait of ours, with its deadline
//! ```
//!
//! Tokens as Packer has them: `<enter> <return> <esc> <bs> <del> <tab> <spacebar> <insert> <home>
//! <end> <pageUp> <pageDown> <up> <down> <left> <right> <menu> <f1>..<f12>`, `<leftCtrl>`,
//! `<leftAlt>`, `<leftShift>`, `<leftSuper>` and the right ones, each with `On` and `Off`,
//! `<xOn>`/`<xOff>` for a single character, `<wait>`, `<wait5>`, `<wait1m20s>`. Case does not
//! matter. Ours: `<waitSerial '…' 90s>`, `<waitScreenStable 2s 60s>`, `<waitScreenChange 60s>`.

use std::{path::PathBuf, time::Duration};

use tokio::time::Instant;

use crate::{
    driver::Vm,
    error::{Error, Result},
    keys::{Key, KeyEvent, chord, type_char},
    screen::{Region, Screen, ScreenHash},
    serial::SerialPattern,
};

/// How long our waits last when the token names no limit.
const DEFAULT_LIMIT: Duration = Duration::from_secs(120);
const SCREEN_POLL: Duration = Duration::from_millis(250);
/// Of 64 places of a hash; a cursor changes one or two.
const SAME_SCREEN: u32 = 4;

/// One thing to do.
#[derive(Clone, Debug)]
pub enum BootStep {
    Keys(Vec<KeyEvent>),
    /// Plain time. Kept for the field's templates; waits on the guest are better.
    Pause(Duration),
    Wait(Wait),
}

/// Something the guest is waited to do, with a deadline.
#[derive(Clone, Debug)]
pub struct Wait {
    pub on: WaitOn,
    pub limit: Duration,
}

#[derive(Clone, Debug)]
pub enum WaitOn {
    /// Said on the serial line after the last wait's match.
    Serial(SerialPattern),
    /// The screen shows something and stays the same for `still_for`.
    ScreenStable { still_for: Duration },
    /// The screen becomes another than it was when the wait began.
    ScreenChange,
    /// The screen's hash comes within `max_distance` (of 64) of this one.
    ScreenHash { hash: ScreenHash, max_distance: u32 },
    /// A part of the screen looks like a picture; `max_difference` from 0 (same) to 1.
    ScreenLike { picture: PathBuf, region: Option<Region>, max_difference: f64 },
}

impl std::fmt::Display for WaitOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WaitOn::Serial(pattern) => write!(f, "{pattern} on the serial line"),
            WaitOn::ScreenStable { still_for } => {
                write!(
                    f,
                    "a screen that stands still for {}",
                    crate::error::show_duration(*still_for)
                )
            }
            WaitOn::ScreenChange => write!(f, "the screen to change"),
            WaitOn::ScreenHash { hash, .. } => write!(f, "a screen like {hash}"),
            WaitOn::ScreenLike { picture, .. } => {
                write!(f, "a screen like {}", picture.display())
            }
        }
    }
}

/// Reads a boot command.
pub fn parse(text: &str) -> Result<Vec<BootStep>> {
    let mut steps = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let token = (c == '<').then(|| token_at(text, at)).flatten();
        match token {
            Some((inside, end)) => {
                steps.push(
                    token_step(inside)
                        .ok_or_else(|| Error::BootCommand { at, what: unknown_token(inside) })??,
                );
                at = end;
            }
            None => {
                let events = type_char(c).ok_or_else(|| Error::BootCommand {
                    at,
                    what: format!("{c:?} is not on a US keyboard"),
                })?;
                steps.push(BootStep::Keys(events));
                at += c.len_utf8();
            }
        }
    }
    Ok(merge_keys(steps))
}

/// A `<…>` beginning at `at`: what is inside, and where it ends. Quotes may hold `>`. A `<` that
/// opens nothing that looks like a token is just the character.
fn token_at(text: &str, at: usize) -> Option<(&str, usize)> {
    let mut quote = None;
    for (offset, c) in text[at + 1..].char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '>') => {
                let inside = &text[at + 1..at + 1 + offset];
                let first = inside.chars().next()?;
                let looks_like_one = first.is_alphanumeric() && !inside.contains('<');
                return looks_like_one.then_some((inside, at + offset + 2));
            }
            (None, '<') => return None,
            _ => {}
        }
    }
    None
}

fn unknown_token(inside: &str) -> String {
    let word = inside.split_whitespace().next().unwrap_or_default();
    format!("there is no token <{word}>; a plain '<' can be typed as <lt>")
}

fn named_key(name: &str) -> Option<Key> {
    use Key::*;
    Some(match name {
        "enter" | "return" => Return,
        "esc" => Esc,
        "bs" => Backspace,
        "del" => Delete,
        "tab" => Tab,
        "spacebar" => Space,
        "insert" => Insert,
        "home" => Home,
        "end" => End,
        "pageup" => PageUp,
        "pagedown" => PageDown,
        "up" => Up,
        "down" => Down,
        "left" => Left,
        "right" => Right,
        "menu" => Menu,
        "f1" => F1,
        "f2" => F2,
        "f3" => F3,
        "f4" => F4,
        "f5" => F5,
        "f6" => F6,
        "f7" => F7,
        "f8" => F8,
        "f9" => F9,
        "f10" => F10,
        "f11" => F11,
        "f12" => F12,
        "leftctrl" => LeftCtrl,
        "rightctrl" => RightCtrl,
        "leftalt" => LeftAlt,
        "rightalt" => RightAlt,
        "leftshift" => LeftShift,
        "rightshift" => RightShift,
        "leftsuper" => LeftSuper,
        "rightsuper" => RightSuper,
        "capslock" => CapsLock,
        _ => return None,
    })
}

/// `None`: there is no such token.
fn token_step(inside: &str) -> Option<Result<BootStep>> {
    let name = inside.to_ascii_lowercase();
    if let Some(key) = named_key(&name) {
        return Some(Ok(BootStep::Keys(chord(&[key]))));
    }
    if name == "lt" {
        return type_char('<').map(|events| Ok(BootStep::Keys(events)));
    }
    for (suffix, down) in [("on", true), ("off", false)] {
        if let Some(stem) = name.strip_suffix(suffix) {
            let mut letters = stem.chars();
            let single = match (letters.next(), letters.next()) {
                (Some(c), None) => Key::for_char(c).map(|(key, _)| key),
                _ => None,
            };
            if let Some(key) = named_key(stem).or(single) {
                return Some(Ok(BootStep::Keys(vec![KeyEvent { key, down }])));
            }
        }
    }
    if let Some(step) = our_wait(inside, &name) {
        return Some(step);
    }
    let time = name.strip_prefix("wait")?;
    if time.is_empty() {
        return Some(Ok(BootStep::Pause(Duration::from_secs(1))));
    }
    parse_duration(time).map(|time| Ok(BootStep::Pause(time)))
}

fn our_wait(inside: &str, lower: &str) -> Option<Result<BootStep>> {
    let wait = |on, limit| Some(Ok(BootStep::Wait(Wait { on, limit })));
    if lower.starts_with("waitserial") {
        let rest = inside["waitserial".len()..].trim();
        let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let (text, rest) = rest[1..].split_once(quote)?;
        let limit = limit_of(rest)?;
        return match SerialPattern::parse(text) {
            Ok(pattern) => wait(WaitOn::Serial(pattern), limit),
            Err(error) => Some(Err(error)),
        };
    }
    let words: Vec<&str> = lower.split_whitespace().collect();
    match words.as_slice() {
        ["waitscreenstable", still, rest @ ..] => wait(
            WaitOn::ScreenStable { still_for: parse_duration(still)? },
            limit_of(&rest.join(" "))?,
        ),
        ["waitscreenchange", rest @ ..] => wait(WaitOn::ScreenChange, limit_of(&rest.join(" "))?),
        _ => None,
    }
}

fn limit_of(text: &str) -> Option<Duration> {
    match text.trim() {
        "" => Some(DEFAULT_LIMIT),
        text => parse_duration(text),
    }
}

/// `5` (seconds), `250ms`, `1m20s`, `1.5s`, as Packer and Go write them.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[unit..];
    }
    (total > Duration::ZERO || text == "0s").then_some(total)
}

fn merge_keys(steps: Vec<BootStep>) -> Vec<BootStep> {
    let mut merged: Vec<BootStep> = Vec::with_capacity(steps.len());
    for step in steps {
        match (merged.last_mut(), step) {
            (Some(BootStep::Keys(before)), BootStep::Keys(more)) => before.extend(more),
            (_, step) => merged.push(step),
        }
    }
    merged
}

/// Plays boot commands at one machine, remembering how far its serial line was read.
#[derive(Debug)]
pub struct BootTyper<'a> {
    vm: &'a dyn Vm,
    serial_from: u64,
}

impl<'a> BootTyper<'a> {
    pub fn new(vm: &'a dyn Vm) -> Self {
        Self { vm, serial_from: vm.serial().begin() }
    }

    /// Does the steps in order; ends early when the machine does.
    pub async fn play(&mut self, steps: &[BootStep]) -> Result<()> {
        for step in steps {
            match step {
                BootStep::Keys(events) => {
                    let (vm, exit) = (self.vm, self.vm.exit_watch());
                    exit.or_ended("keys to be typed", vm.serial(), vm.send_keys(events)).await?;
                }
                BootStep::Pause(time) => {
                    let pause = async {
                        tokio::time::sleep(*time).await;
                        Ok(())
                    };
                    let exit = self.vm.exit_watch();
                    exit.or_ended("a pause to pass", self.vm.serial(), pause).await?;
                }
                BootStep::Wait(wait) => self.wait(wait).await?,
            }
        }
        Ok(())
    }

    /// Waits for one thing.
    pub async fn wait(&mut self, wait: &Wait) -> Result<()> {
        let (vm, exit) = (self.vm, self.vm.exit_watch());
        if let WaitOn::Serial(pattern) = &wait.on {
            let found = vm.serial().wait_for(pattern, self.serial_from, wait.limit, &exit).await?;
            self.serial_from = found.end;
            return Ok(());
        }
        let subject = wait.on.to_string();
        let mut judge = ScreenJudge::new(&wait.on)?;
        let deadline = Instant::now() + wait.limit;
        loop {
            let late = Instant::now() >= deadline;
            let shot = exit.or_ended(&subject, vm.serial(), vm.screenshot()).await;
            let shown = match shot {
                Ok(screen) => {
                    if judge.is_satisfied(&screen, Instant::now()) {
                        return Ok(());
                    }
                    format!(
                        "a screen of {}x{} with hash {}",
                        screen.width,
                        screen.height,
                        screen.hash()
                    )
                }
                // Before the guest has set a mode there may be nothing to photograph.
                Err(Error::Monitor { reason, .. }) => reason,
                Err(other) => return Err(other),
            };
            if late {
                return Err(Error::TimedOut {
                    subject,
                    after: wait.limit,
                    last_seen: shown,
                    serial_tail: vm.serial().tail(),
                });
            }
            let pause = async {
                tokio::time::sleep(SCREEN_POLL).await;
                Ok(())
            };
            exit.or_ended(&subject, vm.serial(), pause).await?;
        }
    }
}

/// Decides over a row of pictures.
struct ScreenJudge<'a> {
    on: &'a WaitOn,
    picture: Option<Screen>,
    first: Option<ScreenHash>,
    still: Option<(ScreenHash, Instant)>,
}

impl<'a> ScreenJudge<'a> {
    fn new(on: &'a WaitOn) -> Result<Self> {
        let picture = match on {
            WaitOn::ScreenLike { picture, .. } => Some(Screen::read_png(picture)?),
            _ => None,
        };
        Ok(Self { on, picture, first: None, still: None })
    }

    fn is_satisfied(&mut self, screen: &Screen, now: Instant) -> bool {
        let hash = screen.hash();
        match self.on {
            WaitOn::Serial(_) => false,
            WaitOn::ScreenStable { still_for } => {
                let same = |h: ScreenHash| h.distance(hash) <= SAME_SCREEN;
                match self.still {
                    Some((before, since)) if same(before) && !screen.is_blank() => {
                        now.duration_since(since) >= *still_for
                    }
                    _ => {
                        self.still = (!screen.is_blank()).then_some((hash, now));
                        false
                    }
                }
            }
            WaitOn::ScreenChange => {
                let first = *self.first.get_or_insert(hash);
                first.distance(hash) > SAME_SCREEN
            }
            WaitOn::ScreenHash { hash: wanted, max_distance } => {
                wanted.distance(hash) <= *max_distance
            }
            WaitOn::ScreenLike { region, max_difference, .. } => {
                let Some(picture) = &self.picture else { return false };
                match region {
                    // A picture of the whole screen is cut as the screen is.
                    Some(region)
                        if picture.width > region.width || picture.height > region.height =>
                    {
                        picture.crop(*region).difference(&screen.crop(*region)) <= *max_difference
                    }
                    Some(region) => picture.difference(&screen.crop(*region)) <= *max_difference,
                    None => picture.difference(screen) <= *max_difference,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps as one would write them down: `+` press, `-` release.
    fn shown(text: &str) -> String {
        let steps = parse(text).unwrap_or_else(|e| panic!("{e}"));
        let show = |step: &BootStep| match step {
            BootStep::Keys(events) => events
                .iter()
                .map(|e| format!("{}{}", if e.down { "+" } else { "-" }, e.key.qcode()))
                .collect::<Vec<_>>()
                .join(" "),
            BootStep::Pause(time) => format!("pause {time:?}"),
            BootStep::Wait(wait) => format!("{} within {:?}", wait.on, wait.limit),
        };
        steps.iter().map(show).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn the_fields_tokens_mean_what_they_mean_there() {
        for (text, steps) in [
            ("aB", "+a -a +shift +b -b -shift"),
            ("<enter><RETURN><Esc>", "+ret -ret +ret -ret +esc -esc"),
            ("<wait><wait5><wait1m20s><wait250ms>", "pause 1s; pause 5s; pause 80s; pause 250ms"),
            (
                "<leftCtrlOn><leftAltOn><del><leftAltOff><leftCtrlOff>",
                "+ctrl +alt +delete -delete -alt -ctrl",
            ),
            ("<cOn><cOff><leftShift>", "+c -c +shift -shift"),
            (
                "<f12><pageUp><spacebar><bs>",
                "+f12 -f12 +pgup -pgup +spc -spc +backspace -backspace",
            ),
            ("a < b", "+a -a +spc -spc +shift +comma -comma -shift +spc -spc +b -b"),
            ("<lt>", "+shift +comma -comma -shift"),
            ("<waitSerial 'a > b' 90s>x", "\"a > b\" on the serial line within 90s; +x -x"),
            ("<waitSerial \"/lo.in:/\">", "/lo.in:/ on the serial line within 120s"),
            ("<waitScreenStable 2s 1m>", "a screen that stands still for 2s within 60s"),
            ("<waitscreenchange>", "the screen to change within 120s"),
        ] {
            assert_eq!(shown(text), steps, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_typed_is_refused_with_its_place() {
        for (text, at, words) in [
            ("ab<entre>", 2, "no token <entre>"),
            ("a\u{e9}", 1, "not on a US keyboard"),
            ("<wait5x>", 0, "no token <wait5x>"),
            ("<waitSerial login>", 0, "no token <waitSerial>"),
        ] {
            let Error::BootCommand { at: found, what } = parse(text).unwrap_err() else { panic!() };
            assert_eq!(found, at, "{text}");
            assert!(what.contains(words), "{what}");
        }
    }

    #[test]
    fn a_screen_is_stable_only_after_it_stood_still() {
        let screen = |shade: u8| Screen {
            width: 32,
            height: 32,
            rgb: (0..32 * 32).flat_map(|i| [if i % 32 > 16 { shade } else { 0 }; 3]).collect(),
        };
        let on = WaitOn::ScreenStable { still_for: Duration::from_secs(2) };
        let mut judge = ScreenJudge::new(&on).unwrap();
        let start = Instant::now();
        let after = |s: u64| start + Duration::from_secs(s);
        assert!(!judge.is_satisfied(&screen(0), after(0)), "blank");
        assert!(!judge.is_satisfied(&screen(0), after(9)), "blank is no picture");
        assert!(!judge.is_satisfied(&screen(200), after(10)));
        assert!(!judge.is_satisfied(&screen(200), after(11)));
        assert!(judge.is_satisfied(&screen(200), after(12)));
    }
}
