//! Events as JSON lines (one JSON text, RFC 8259, to a line), for programs that follow a run.

use crate::sandbox::event::Event;

/// The event as one line of JSON that ends in exactly one newline.
pub fn line(event: &Event) -> String {
    super::ascii_controls(&serde_json::to_string(event).expect("nothing in it has keys that are no text")) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::event::Output;
    use crate::sandbox::report::{LimitUsed, Mode, Outcome, Sample};
    use crate::sandbox::show::samples;
    use serde_json::{Value, json};

    fn read(event: Event) -> Value {
        let line = line(&event);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(line.ends_with("}\n"), "{line}");
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn each_event_has_its_name_and_time() {
        let report = samples::busy();
        let limit =
            LimitUsed { name: "memory", value: "64M".into(), by: "cgroup v2 memory.max".into(), hit: Some(false) };
        let command = vec!["sh".into(), "-c".into(), "a\nb".into()];
        let events = [
            ("started", Event::Started { at_us: 7, id: "a".into(), pid: 3, command, mode: Mode::Confined }),
            ("stdout", Event::Stdout(Output { at_us: 7, data: b"a\nb\xff".to_vec() })),
            ("stderr", Event::Stderr(Output { at_us: 7, data: vec![] })),
            ("sample", Event::Sample(Sample { at_us: 7, ..Sample::default() })),
            ("limit-updated", Event::LimitUpdated { at_us: 7, limit }),
            ("finding", Event::Finding { at_us: 7, finding: report.findings[0].clone() }),
            ("note", Event::Note { at_us: 7, text: "no cgroup".into() }),
            ("exited", Event::Exited { at_us: 7, outcome: Outcome::TimedOut, status: 124 }),
            ("report", Event::Report { at_us: 7, report: Box::new(report.clone()) }),
        ];
        for (name, event) in events {
            let value = read(event);
            assert_eq!((&value["event"], &value["at_us"]), (&json!(name), &json!(7)), "{value}");
        }
        for event in [Event::Connection(report.connections[0].clone()), Event::Violation(report.violations[0].clone())]
        {
            assert!(read(event)["at_us"].is_u64());
        }
    }

    #[test]
    fn the_fields_keep_their_names() {
        let exited = read(Event::Exited { at_us: 5, outcome: Outcome::Signaled { signal: 9 }, status: 137 });
        let outcome = json!({"cause": "signaled", "signal": 9});
        assert_eq!(exited, json!({"event": "exited", "at_us": 5, "outcome": outcome, "status": 137}));
        let out = read(Event::Stdout(Output { at_us: 1, data: b"\x1b\xc2\x9b\xff".to_vec() }));
        assert_eq!(out, json!({"event": "stdout", "at_us": 1, "data": "\u{1b}\u{9b}\u{fffd}", "bytes": 4}));
        let report = samples::busy();
        let whole: Value = serde_json::from_str(&crate::sandbox::show::json(&report)).unwrap();
        let mut told = read(Event::Report { at_us: 1, report: Box::new(report) });
        told.as_object_mut().unwrap().retain(|key, _| key != "event" && key != "at_us");
        assert_eq!(told, whole);
    }

    #[test]
    fn no_control_character_leaves() {
        let data = "\u{9b}31m\u{7f}\u{202e}\u{2028}".as_bytes().to_vec();
        let line = line(&Event::Stdout(Output { at_us: 1, data }));
        assert!(line.trim_end().chars().all(|c| !super::super::is_unsafe(c)), "{line:?}");
    }
}
