//! Other schemas for the class of a container that runs.

use super::{AT, Line, Record, Wanted, write_line};
use crate::error::{Context, Result};
use std::fs;
use std::path::Path;

/// The lines that a class had where an update has put others.
#[derive(Debug)]
pub struct Before(Vec<Line>);

impl Record {
    /// Writes the wanted lines to the container's class, also if others share it: whoever updates asks for just that. The
    /// wanted class and monitoring do not count.
    ///
    /// # Errors
    /// What the kernel does not take; the class is as it was then.
    pub fn update(&self, wanted: &Wanted, root: &Path) -> Result<Before> {
        let file = self.class.join("schemata");
        let current = fs::read_to_string(&file).during(|| format!("{AT}: read {}", file.display()))?;
        let resource = |text: &str| text.trim().split(':').next().map(str::to_owned);
        let mut before = Before(Vec::new());
        for line in &wanted.lines {
            let old = current.lines().find(|old| resource(old) == resource(&line.text));
            write_line(&self.class, line, root).inspect_err(|_| self.restore(&before, root))?;
            before.0.extend(old.map(|old| Line { text: old.trim().to_owned(), ..line.clone() }));
        }
        Ok(before)
    }

    /// Undoes an update.
    pub fn restore(&self, before: &Before, root: &Path) {
        for line in &before.0 {
            let _ = write_line(&self.class, line, root);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prim::intelrdt::compile;
    use crate::spec::IntelRdt;

    #[test]
    fn lines_are_written_and_undone() {
        let class = std::env::temp_dir().join(format!("brig-resctrl-update-{}", std::process::id()));
        fs::create_dir_all(&class).unwrap();
        fs::write(class.join("schemata"), "    MB:0=100\n    L3:0=7ff\n").unwrap();
        let record = Record { class: class.clone(), own: true, monitor: None };
        let rdt = IntelRdt { l3_cache_schema: Some("L3:0=f".into()), ..IntelRdt::default() };
        let before = record.update(&compile(&rdt, "web").unwrap(), &class).unwrap();
        record.restore(&before, &class);
        let text = fs::read_to_string(class.join("schemata")).unwrap();
        fs::remove_dir_all(&class).unwrap();
        // A file that grows, where the kernel's keeps a line for each resource.
        assert_eq!(text, "    MB:0=100\n    L3:0=7ff\nL3:0=f\nL3:0=7ff\n");
    }
}
