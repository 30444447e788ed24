//! Texts that parse, their instructions, and the errors of those that don't.

use super::*;
use proptest::prelude::*;

fn only(text: &str) -> Instruction {
    let file = parse(format!("FROM scratch\n{text}\n").as_bytes()).unwrap();
    file.stages.last().and_then(|stage| stage.steps.last()).unwrap().instruction.clone()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn keywords_are_case_insensitive_and_stages_keep_their_steps() {
    let file =
        parse(b"arg V=1\nfrom a:$V As Base\nRun x\nFROM --platform=linux/amd64 base\ncmd y\n").unwrap();
    assert_eq!(file.args, [(1, "V".into(), Some("1".into()))]);
    let [first, second] = file.stages.as_slice() else { panic!("{file:?}") };
    assert_eq!((first.from.name.as_deref(), first.steps.len()), (Some("base"), 1));
    assert_eq!(second.from.platform.as_deref(), Some("linux/amd64"));
}

#[test]
fn a_json_form_that_is_no_json_is_a_shell_form() {
    assert_eq!(only(r#"CMD ["a", "b c"]"#), Instruction::Cmd(Command::Exec(texts(&["a", "b c"]))));
    assert_eq!(only("RUN ['a']"), Instruction::Run(Command::Shell("['a']".into())));
    assert_eq!(only("RUN [ -f /x ] && y"), Instruction::Run(Command::Shell("[ -f /x ] && y".into())));
}

#[test]
fn env_and_label_have_two_forms() {
    assert_eq!(
        only(r#"ENV a=b c="d e" f=g\ h"#),
        Instruction::Env(pairs(&[("a", "b"), ("c", "\"d e\""), ("f", "g\\ h")]))
    );
    assert_eq!(only("ENV one two= three"), Instruction::Env(pairs(&[("one", "two= three")])));
    assert_eq!(only("LABEL x  y z"), Instruction::Label(pairs(&[("x", "y z")])));
}

#[test]
fn copy_takes_flags_and_both_forms() {
    let copy = |from: Option<&str>, sources: &[&str], destination: &str| Copy {
        from: from.map(str::to_owned),
        chown: None,
        chmod: None,
        sources: texts(sources),
        inline: Vec::new(),
        destination: destination.into(),
    };
    assert_eq!(only("COPY --from=base a b /c/"), Instruction::Copy(copy(Some("base"), &["a", "b"], "/c/")));
    assert_eq!(only(r#"COPY ["a b", "/c"]"#), Instruction::Copy(copy(None, &["a b"], "/c")));
}

#[test]
fn heredocs_are_scripts_files_and_what_the_shell_makes_of_them() {
    let script = Instruction::Run(Command::Shell("a $b\n# no comment\n\nc\n".into()));
    assert_eq!(only("RUN <<EOF\na $b\n# no comment\n\nc\nEOF"), script);
    assert_eq!(only("RUN << EOF\na $b\n# no comment\n\nc\nEOF"), script);
    let file = Command::Script { name: "E F".into(), text: "#!/bin/x\n".into() };
    assert_eq!(only("RUN <<-'E F'\n\t#!/bin/x\nE F"), Instruction::Run(file));
    let piped = Instruction::Run(Command::Shell("cat <<A <<-B >x\none\nA\n\ttwo\nB".into()));
    assert_eq!(only("RUN cat <<A <<-B >x\none\nA\n\ttwo\nB"), piped);
    let Instruction::Copy(copy) = only("COPY f <<\"one.txt\" <<-two /d/\n$x\none.txt\n\ty\ntwo") else {
        panic!()
    };
    let inline =
        copy.inline.iter().map(|found| (found.name.as_str(), found.text(), found.expand)).collect::<Vec<_>>();
    assert_eq!(inline, [("one.txt", "$x\n".to_owned(), false), ("two", "y\n".to_owned(), true)]);
    assert_eq!((copy.sources, copy.destination.as_str()), (texts(&["f"]), "/d/"));
}

#[test]
fn healthchecks_and_triggers_are_kept() {
    let check = Healthcheck {
        test: texts(&["CMD-SHELL", "wget x"]),
        durations: vec![("Interval", 90_000_000_000)],
        retries: Some(2),
    };
    assert_eq!(only("HEALTHCHECK --interval=1m30s --retries=2 CMD wget x"), Instruction::Healthcheck(check));
    assert_eq!(only("ONBUILD COPY . /app"), Instruction::OnBuild("COPY . /app".into()));
    assert_eq!(only("ONBUILD RUN <<A\nx\nA"), Instruction::OnBuild("RUN <<A\nx\nA".into()));
    let again = trigger(7, "RUN <<A\nx\nA").unwrap();
    assert_eq!((again.line, again.instruction), (7, Instruction::Run(Command::Shell("x\n".into()))));
    assert!(trigger(7, "RUN a\nRUN b").is_err());
}

#[test]
fn each_mistake_is_told_with_its_line_and_what_to_do() {
    let corpus = [
        ("", "the Dockerfile has no FROM: an image begins with one"),
        ("RUN x", "Dockerfile line 1: RUN stands before the first FROM: begin with FROM (or ARG)"),
        ("FROM a b", "Dockerfile line 1: expected FROM image, or FROM image AS name"),
        ("FROM", "Dockerfile line 1: FROM has no arguments: write what it is for, or remove the line"),
        ("FROM --foo=1 a", "Dockerfile line 1: FROM has no flag --foo: only --platform"),
        (
            "FROM a AS 1x",
            "Dockerfile line 1: the stage name \"1x\" can't be used: begin with a letter, then letters, digits, - _ .",
        ),
        ("FROM a\n\nRUNN x", "Dockerfile line 3: RUNN is no instruction: did you mean RUN?"),
        (
            "FROM a\nRUN a &&\n  && b",
            "Dockerfile line 3: && is no instruction: is a \\ missing at the end of the line before?",
        ),
        ("FROM a\nCOPY x", "Dockerfile line 2: expected COPY source … destination"),
        ("FROM a\nCOPY --link x y", "Dockerfile line 2: COPY --link is not supported yet: remove it"),
        ("FROM a\nCOPY --chown= x y", "Dockerfile line 2: --chown has no value: write --chown=…"),
        ("FROM a\nADD --from=b x y", "Dockerfile line 2: ADD has no flag --from: remove it"),
        (
            "FROM a\nADD http://h/x y",
            "Dockerfile line 2: ADD http://h/x is not supported yet: fetch it before and use COPY",
        ),
        (
            "FROM a\nCOPY <<EOF /x\nhi\n",
            "Dockerfile line 2: <<EOF is not closed: write EOF alone on a line below",
        ),
        ("FROM a\nONBUILD ONBUILD RUN x", "Dockerfile line 2: ONBUILD ONBUILD can't be kept for later"),
        (
            "FROM a\nONBUILD RUN <<E\nE x",
            "Dockerfile line 2: <<E is not closed: write E alone on a line below",
        ),
        ("FROM a\nONBUILD FROM b", "Dockerfile line 2: ONBUILD FROM can't be kept for later"),
        (
            "FROM a\nHEALTHCHECK --interval=x CMD y",
            "Dockerfile line 2: --interval=x is no duration: write 30s, or 1m30s",
        ),
        (
            "FROM a\nRUN --mount=type=cache,target=/x y",
            "Dockerfile line 2: RUN --mount=type=cache,target=/x is not supported yet: remove it",
        ),
        ("FROM a\nENV x", "Dockerfile line 2: ENV x has no value: write x=value"),
        (
            "FROM a\nENV x=1 y",
            "Dockerfile line 2: \"y\" in ENV is no name=value: put quotes around a value with blanks",
        ),
        ("FROM a\nLABEL =1", "Dockerfile line 2: =1: a name must stand before the ="),
        ("FROM a\nSHELL sh -c", "Dockerfile line 2: SHELL wants its JSON form: SHELL [\"/bin/sh\", \"-c\"]"),
        ("FROM a\nCMD [\"a\", 1]", "Dockerfile line 2: 1 in the JSON form: put it in double quotes"),
        ("FROM a\nHEALTHCHECK x", "Dockerfile line 2: expected HEALTHCHECK CMD command, or HEALTHCHECK NONE"),
        ("FROM a\nARG =x", "Dockerfile line 2: \"=x\" is no ARG: write name or name=default"),
        ("FROM a\nCMD --x y", "Dockerfile line 2: CMD has no flag --x: remove it"),
        ("FROM a\nCOPY --chown=\"a x y", "Dockerfile line 2: \"a x y: the quote \" is not closed"),
    ];
    for (text, message) in corpus {
        assert_eq!(parse(text.as_bytes()).unwrap_err().to_string(), message, "{text}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn no_text_of_instructions_makes_the_parser_panic(
        lines in proptest::collection::vec(
            "(FROM|RUN|COPY|ENV|ARG|LABEL|CMD|SHELL|# escape) ?[-a-z=\"'\\\\`$\\[\\], <\n]{0,30}", 0..12)
    ) {
        let _ = parse(lines.join("\n").as_bytes());
    }
}
