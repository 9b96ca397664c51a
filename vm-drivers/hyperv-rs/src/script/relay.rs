//! The serial line of a machine, as a stream: a script that copies the host's named pipe to stdout.
//!
//! Hyper-V makes the pipe when the machine starts; a client that waits for it from before misses no word.

use super::literal;

/// Copies a pipe for as long as it lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// Without `\\.\pipe\`.
    pub pipe: String,
    /// How long the pipe is waited for.
    pub patience_ms: u32,
}

/// The exit code when the pipe did not come in time.
pub const NO_PIPE: u32 = 3;

impl Relay {
    pub fn render(&self) -> String {
        format!(
            "$ErrorActionPreference='Stop'\n\
             $pipe=[IO.Pipes.NamedPipeClientStream]::new('.',{},[IO.Pipes.PipeDirection]::InOut)\n\
             try{{$pipe.Connect({})}}catch{{exit {NO_PIPE}}}\n\
             $out=[Console]::OpenStandardOutput();$buffer=[byte[]]::new(4096)\n\
             try{{while(($n=$pipe.Read($buffer,0,$buffer.Length)) -gt 0){{$out.Write($buffer,0,$n);$out.Flush()}}}}catch{{}}\n\
             exit 0\n",
            literal(&self.pipe),
            self.patience_ms
        )
    }

    /// Reads a relay back from its text; `None` for any other text.
    pub fn parse(text: &str) -> Option<Relay> {
        let pipe = text.split_once("new('.','")?.1.split_once('\'')?.0.to_owned();
        let patience_ms = text.split_once("Connect(")?.1.split_once(')')?.0.parse().ok()?;
        let relay = Relay { pipe, patience_ms };
        (relay.render() == text).then_some(relay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_read_back_and_nothing_else_is() {
        let relay = Relay { pipe: "gilt-7".into(), patience_ms: 60_000 };
        assert_eq!(Relay::parse(&relay.render()), Some(relay.clone()));
        assert_eq!(Relay::parse(&format!("{}Remove-Item C:\\", relay.render())), None);
    }
}
