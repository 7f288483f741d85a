//! `linux.cgroupsPath` as the systemd driver reads it: `slice:prefix:name`.

use super::super::PATH;
use crate::error::Problem;

/// A scope's name, and the slice that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The slice unit, as `machine.slice`; `-.slice` is the root.
    pub slice: String,
    /// The scope unit.
    pub unit: String,
}

/// The longest name of a unit (`UNIT_NAME_MAX` of systemd, less its zero byte).
const LONGEST: usize = 255;

/// Reads the path. Without one the scope is `brig-ID.scope`; without a slice it is in `system.slice`, or `user.slice` for a
/// user instance, as with runc.
///
/// # Errors
/// Another form, and names that systemd would not take.
pub fn names(path: Option<&str>, id: &str, user: bool) -> Result<Names, Problem> {
    let (slice, prefix, name) = match path.filter(|path| !path.is_empty()) {
        None => ("", "brig", escape(id)),
        Some(path) => {
            let mut parts = path.split(':');
            match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some(slice), Some(prefix), Some(name), None) => (slice, prefix, name.to_owned()),
                _ => {
                    let what = "has to read as slice:prefix:name with the systemd cgroup manager, such as \
                                system.slice:brig:web for brig-web.scope; for a path use --cgroup-manager cgroupfs";
                    return Err(Problem::new(PATH, format!("{path:?} {what}")));
                }
            }
        }
    };
    let wrong = |what: String| Err(Problem::new(PATH, what));
    if name.is_empty() {
        return wrong("has no name after the second colon; it reads as slice:prefix:name".into());
    }
    if name.ends_with(".slice") {
        let what = "names a slice, which groups units and holds no processes itself; name a scope in it";
        return wrong(format!("{name:?} {what}: {name}:prefix:name"));
    }
    let slice = match slice {
        "" if user => "user.slice",
        "" => "system.slice",
        slice => slice,
    };
    if let Err(what) = expand(slice) {
        return wrong(what);
    }
    let stem = if prefix.is_empty() { name } else { format!("{prefix}-{name}") };
    let unit = if stem.ends_with(".scope") && prefix.is_empty() { stem } else { format!("{stem}.scope") };
    if let Some(c) = unit.chars().find(|c| !fits(*c)) {
        return wrong(format!("{unit:?} has {c:?} in it; a unit's name takes letters, digits and : - _ . \\ @ only"));
    }
    if unit.len() > LONGEST {
        return wrong(format!("{} bytes are too long for a unit's name; the limit is {LONGEST}", unit.len()));
    }
    Ok(Names { slice: slice.to_owned(), unit })
}

fn fits(c: char) -> bool {
    c.is_ascii_alphanumeric() || ":-_.\\@".contains(c)
}

/// A container's ID as a part of a unit's name, see systemd-escape(1): `+` is all that an ID may have and a unit may not.
fn escape(id: &str) -> String {
    id.replace('+', "\\x2b")
}

/// The path of a slice below the root of its manager: `a-b.slice` is `/a.slice/a-b.slice`, see systemd.slice(5).
///
/// # Errors
/// What is no slice's name, in words.
pub fn expand(slice: &str) -> Result<String, String> {
    let stem = match slice.strip_suffix(".slice") {
        Some("-") => return Ok(String::new()),
        Some(stem) if !stem.is_empty() => stem,
        _ => return Err(format!("{slice:?} is no slice; its name ends in .slice, as in machine.slice:prefix:name")),
    };
    if slice.len() > LONGEST || !stem.chars().all(fits) {
        let what = "a slice's name takes letters, digits and : - _ . \\ @ only, 255 at most";
        return Err(format!("{:?} is no slice; {what}", slice.chars().take(40).collect::<String>()));
    }
    if stem.split('-').any(str::is_empty) {
        return Err(format!("{slice:?} is no slice; a dash has a name before and after it"));
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    Ok(ends.map(|end| format!("/{}.slice", &stem[..end])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> Result<(String, String), String> {
        let names = names(Some(path), "c1", false).map_err(|p| p.to_string())?;
        Ok((names.slice, names.unit))
    }

    #[test]
    fn scopes() {
        for (path, slice, unit) in [
            ("", "system.slice", "brig-c1.scope"),
            (":runc:c1", "system.slice", "runc-c1.scope"),
            ("machine.slice:libpod:0a1b", "machine.slice", "libpod-0a1b.scope"),
            ("a-b.slice::web", "a-b.slice", "web.scope"),
            ("-.slice::web.scope", "-.slice", "web.scope"),
            ("user.slice:docker:x.y", "user.slice", "docker-x.y.scope"),
        ] {
            assert_eq!(read(path), Ok((slice.into(), unit.into())), "{path}");
        }
        assert_eq!(
            names(None, "a+b", true).unwrap(),
            Names { slice: "user.slice".into(), unit: "brig-a\\x2bb.scope".into() }
        );
    }

    #[test]
    fn what_is_no_scope() {
        let long = format!(":x:{}", "y".repeat(250));
        for (path, words) in [
            ("/a/b", "slice:prefix:name"),
            ("a:b", "slice:prefix:name"),
            ("a.slice:b:c:d", "slice:prefix:name"),
            ("a.slice:b:", "no name"),
            ("a:b:c", "no slice"),
            ("a/b.slice:b:c", "no slice"),
            (".slice:b:c", "no slice"),
            ("a--b.slice:b:c", "a dash"),
            ("-a.slice:b:c", "a dash"),
            (":b:c.slice", "holds no processes"),
            (":b:c d", "' '"),
            (":b:../c", "'/'"),
            (":b:é", "'é'"),
            (long.as_str(), "too long"),
        ] {
            let said = read(path).unwrap_err();
            assert!(said.starts_with("/linux/cgroupsPath: ") && said.contains(words), "{path}: {said}");
        }
    }

    #[test]
    fn slices_nest_by_their_dashes() {
        assert_eq!(expand("-.slice").unwrap(), "");
        assert_eq!(expand("a.slice").unwrap(), "/a.slice");
        assert_eq!(expand("a-b-c.slice").unwrap(), "/a.slice/a-b.slice/a-b-c.slice");
    }
}
