//! Options: what does nothing is refused with what it wants, errors name options and offer what would do, help is whole.

use super::{assert_refused, eplb, json, plan_args, stdout, write};

#[test]
fn an_option_that_would_do_nothing_is_refused_with_what_it_wants() {
    let folder = tempfile::tempdir().unwrap();
    let loads = write(folder.path(), "loads.json", b"[[1,2,3,4,5,60,7,8]]");
    let refused = |more: &[&str], part: &str| assert_refused(&plan_args(&loads, more), part);
    for option in
        ["--max-moves", "--max-moves-per-layer", "--max-rounds-per-layer", "--min-gain", "--skip-if-balanced"]
    {
        refused(
            &[option, "1"],
            &format!("{option} does nothing here: it is for a plan from the one that runs: --previous"),
        );
    }
    refused(&["--expert-bytes", "5"], "--expert-bytes does nothing here");
    refused(&["--windows", "0"], "--windows does nothing here: it is for --strategy scenarios");
    refused(&["--strategy", "forecast", "--decay", "0.5"], "--decay does nothing here");
    refused(&["--strategy", "scenarios", "--decay", "nan"], "--decay NaN is not above 0");
    refused(&["--weights", "1"], "--weights does nothing here: it is for several load files");
    refused(&["--assignments", "4"], "--assignments does nothing here: it is for groups on nodes");
    let four = ["plan", &loads, "--replicas", "16", "--gpus", "4", "--tight-bound"];
    assert_refused(&four, "--tight-bound does nothing here: it is for 2 or 3 slots a GPU");
    refused(&["--with-map"], "--json");
    refused(&["--format", "npy"], "--out");
    refused(&["--kicks", "7"], "--kicks 7 is called --iterations here");
    refused(&["--restarts", "7"], "--restarts 7 is called --starts here");
}

#[test]
fn a_replay_refuses_what_would_do_nothing_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let trace = write(folder.path(), "trace.json", b"[[[1,2,3,4]],[[4,3,2,1]],[[1,2,3,4]]]");
    let base = ["replay", &trace, "--replicas", "6", "--gpus", "2", "--device", "cpu"];
    let refused = |more: &[&str], part: &str| assert_refused(&[&base[..], more].concat(), part);
    for option in ["--windows", "--decay"] {
        refused(
            &["--strategy", "forecast", option, "1"],
            &format!("{option} does nothing here: it is for --strategy scenarios"),
        );
    }
    refused(
        &["--fresh", "--max-moves", "2"],
        "--max-moves does nothing here: it is for plans from the one that runs: leave out --fresh",
    );
    refused(&["--interval", "3"], "--interval 3 is not less than the windows of the trace, 3");
    refused(&["--shares", "windows,batch,windows"], "--shares windows is named twice");
    refused(&["--strategy", "forecast,forecast"], "--strategy forecast is named twice");
    let both = ["--strategy", "forecast,scenarios", "--windows", "2", "--interval", "2", "--max-moves", "2"];
    assert!(eplb(&[&base[..], &both].concat()).status.success());
}

#[test]
fn a_value_that_will_not_do_is_told_by_its_option() {
    let folder = tempfile::tempdir().unwrap();
    let loads = write(folder.path(), "loads.json", b"[[1,2,3,4,5,60,7,8]]");
    let plan = folder.path().join("plan.json").to_str().unwrap().to_string();
    assert!(eplb(&plan_args(&loads, &["--out", &plan])).status.success());
    let refused = |more: &[&str], part: &str| assert_refused(&plan_args(&loads, more), part);
    let whole = |option: &str| format!("'{option}>': is not a whole number, at least 0");
    refused(&["--seed", "x"], &whole("--seed <SEED"));
    refused(&["--starts", "-1"], "'--starts <STARTS>': is not a whole number from 0 to 4294967295");
    refused(&["--max-foreign", "x"], &whole("--max-foreign <MAX_FOREIGN"));
    refused(&["--layers", "-1..3"], "for '--layers <A..B>': is not A..B");
    refused(&["--time-limit", "-1"], "for '--time-limit <TIME_LIMIT>': is not a number of seconds");
    let from = |more: &[&str], part: &str| refused(&[&["--previous", &plan], more].concat(), part);
    from(&["--max-moves", "150%"], "for '--max-moves <MAX_MOVES>': is not between 0% and 100%");
    from(&["--max-moves", "-5%"], "for '--max-moves <MAX_MOVES>': is not between");
    from(&["--max-moves", "-5"], "for '--max-moves <MAX_MOVES>': is neither a number of slots");
    from(&["--without-gpus", "7,x"], &whole("--without-gpus <WITHOUT_GPUS"));
    from(&["--without-gpus", "-1,0"], &whole("--without-gpus <WITHOUT_GPUS"));
    from(&["--without-gpus", "7"], "--without-gpus 7 is not below --gpus 4: GPUs are numbered from 0 on");
    assert_refused(&["advise", &loads, "--gpus", "-4"], &whole("--gpus <GPUS"));
    assert_refused(&["advise", &loads, "--gpus", "4", "--knee", "-1"], "for '--knee <KNEE>'");
    // An option in the place of a value is none.
    assert_refused(&["advise", &loads, "--gpus", "--json"], "a value is required for '--gpus <GPUS>'");
}

#[test]
fn formats_are_told_by_the_option_that_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| write(folder.path(), name, content);
    let refused = |file: &str, part: &str| assert_refused(&plan_args(file, &[]), part);
    refused(&file("loads.txt", b"1"), "; --load-format tells what it is");
    refused(&file("three.csv", b"0,1,5\n0,2,7\n"), "or --load-format table or rows");
    refused(&file("loads.pt", b"PK"), "eplb_wgpu.read_loads(PATH)");
    refused(
        &file("semicolons.csv", b"1;2;3\n"),
        "its columns are separated by ';', and those of a csv file by",
    );
    refused(&file("tabs.csv", b"1\t2\t3\n"), "its columns are separated by '\\t'");
    for name in ["a.jsonl", "rank0.safetensors"] {
        file(name, b"");
    }
    refused(folder.path().to_str().unwrap(), "; --load-format tensorrt-llm or megatron tells");
    let two = file("two.json", br#"{"physical_to_logical_map": [[0]], "layer_list": []}"#);
    let loads = file("loads.json", b"[[1,2,3,4,5,60,7,8]]");
    assert_refused(&["check", &loads, &two], "; name one by --from of eplb convert, or by --format of");
    assert_refused(&["check", &loads, &file("map.pt", b"PK")], "eplb_wgpu.read_map(PATH)");
    assert_refused(&plan_args(&loads, &["--out", "plan.txt"]), "; --format says what it is");
    // A mark that editors put before a text is no part of it.
    let mark = |text: &str| [b"\xef\xbb\xbf", text.as_bytes()].concat();
    let print = |file: &str, more: &[&str]| json(&plan_args(file, more))["fingerprint"].clone();
    let plan = folder.path().join("plan.json").to_str().unwrap().to_string();
    let made = print(&loads, &["--out", &plan]);
    assert_eq!(print(&file("mark.json", &mark("[[1,2,3,4,5,60,7,8]]")), &[]), made);
    assert_eq!(print(&file("mark.csv", &mark("1,2,3,4,5,60,7,8")), &[]), made);
    let marked = file("marked.json", &mark(&std::fs::read_to_string(&plan).unwrap()));
    assert_eq!(json(&["check", &loads, &marked])["fingerprint"], made);
}

#[test]
fn loads_of_more_layers_than_a_map_are_offered_the_layers_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let loads = write(folder.path(), "loads.json", b"[[1,2,3,4],[4,3,2,1],[1,9,1,1]]");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (plan, map, page) = (path("plan.json"), path("map.npy"), path("page.html"));
    let shape = ["--replicas", "6", "--gpus", "2", "--device", "cpu"];
    let layers = ["--layers", "1..3"];
    assert!(eplb(&[&["plan", &loads, "--out", &plan], &shape[..], &layers].concat()).status.success());
    assert!(eplb(&["convert", &plan, &map]).status.success());
    let said = "layers of the loads: 3 are not the 2 of the map; --layers ";
    let verbs: [&[&str]; 4] = [
        &["check", &loads, &plan],
        &["report", &loads, &plan, "--out", &page],
        &["split", &loads, &plan, "--batch"],
        &["plan", &loads, "--previous", &plan, "--device", "cpu"],
    ];
    for args in verbs {
        assert_refused(args, &format!("{said}1..3 would do"));
        assert!(eplb(&[args, &layers].concat()).status.success(), "{args:?}");
    }
    assert_refused(&["check", &loads, &map, "--gpus", "2"], &format!("{said}A..B takes 2 of them"));
}

#[test]
fn an_option_that_changes_nothing_here_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let loads = write(folder.path(), "loads.json", b"[[1,2,3,4,5,60,7,8]]");
    let warned = |args: &[&str]| {
        let output = eplb(args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let shape = ["plan", &loads, "--replicas", "8", "--gpus", "4", "--device", "cpu"];
    let plan = |more: &[&str]| warned(&[&shape[..], more].concat());
    let groups = "eplb: warning: --groups 2 changes nothing without --nodes: ";
    assert!(plan(&["--groups", "2"]).starts_with(groups));
    assert!(
        warned(&["advise", &loads, "--gpus", "4", "--groups", "2", "--device", "cpu"]).starts_with(groups)
    );
    assert_eq!(plan(&["--groups", "2", "--nodes", "1"]), "");
    let nearest = "eplb: warning: --dispatch nearest changes nothing in this plan";
    for more in [&[][..], &["--groups", "2", "--nodes", "2"]] {
        assert!(plan(&[&["--dispatch", "nearest"], more].concat()).starts_with(nearest), "{more:?}");
    }
    assert_eq!(plan(&["--dispatch", "nearest", "--nodes", "2"]), "");
    assert_eq!(plan(&["--dispatch", "equal", "--tight-bound"]), "");
}

#[test]
fn errors_name_options_and_offer_what_would_do() {
    let folder = tempfile::tempdir().unwrap();
    let loads = write(folder.path(), "loads.json", b"[[1,2,3,4,5,60,7,8]]");
    let refused = |args: &[&str], part: &str| {
        assert_refused(&[&["plan", loads.as_str(), "--device", "cpu"], args].concat(), part);
    };
    refused(&["--gpus", "4"], "--replicas is needed: replicas of a layer");
    refused(
        &["--replicas", "13", "--gpus", "4"],
        "--replicas 13 is not a multiple of --gpus 4; 12 or 16 would do",
    );
    refused(
        &["--replicas", "4", "--gpus", "4"],
        "--replicas 4 is less than the number of experts 8: each needs a replica; 8 would do",
    );
    refused(
        &["--replicas", "12", "--gpus", "4", "--nodes", "3"],
        "--gpus 4 is not a multiple of --nodes 3; 3 or 6 would do",
    );
    refused(
        &["--replicas", "12", "--gpus", "4", "--groups", "3"],
        "is not a multiple of --groups 3; --groups 2 or 4 would do",
    );
    refused(&["--replicas", "12", "--gpus", "4", "--layers", "3"], "from A on, up to but not B");
    refused(&["--replicas", "12", "--gpus", "4", "--threads", "0"], "--threads 0 is not between 1 and 1024");
    refused(
        &["--replicas", "12", "--gpus", "4", "--preset", "best"],
        "invalid value 'best' for '--preset <PRESET>'",
    );
    assert_refused(&["plan"], "LOADS is needed");
    assert_refused(
        &["plan", "--replica", "4"],
        "unexpected argument '--replica' found; a similar argument exists",
    );
    let large = write(folder.path(), "large.json", b"[[1,1e300]]");
    assert_refused(&plan_args(&large, &[]), "expert 1: 1e300 is larger than 2^64");
}

#[test]
fn the_rule_of_a_global_plan_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let loads = write(folder.path(), "loads.json", b"[[1,2,3,4,5,60,7]]");
    let args = [
        "plan",
        &loads,
        "--replicas",
        "8",
        "--gpus",
        "4",
        "--groups",
        "7",
        "--nodes",
        "4",
        "--device",
        "cpu",
    ];
    let output = eplb(&args);
    assert!(stdout(&output).contains("global: 7 groups are not a multiple of 4 nodes"), "{output:?}");
}

#[test]
fn greedy_is_held_to_the_same_most_replicas() {
    let folder = tempfile::tempdir().unwrap();
    let report = |loads: &str, more: &[&str]| -> serde_json::Value {
        let path = write(folder.path(), "loads.json", loads.as_bytes());
        let size =
            ["plan", &path, "--replicas", "8", "--gpus", "4", "--device", "cpu", "--json", "--with-map"];
        serde_json::from_str(&stdout(&eplb(&[&size[..], more].concat()))).unwrap()
    };
    // The hot expert has 5 of 8 slots by greedy, and two of them may be on a GPU; capped at 2 greedy can do no more than this.
    let hot = "[[1000, 4, 3, 2]]";
    let free = report(hot, &[]);
    let capped = report(hot, &["--max-replicas-per-expert", "2"]);
    assert!(capped["greedy_balancedness"].as_f64() < free["greedy_balancedness"].as_f64(), "{capped}");
    let map = capped["physical_to_logical"][0].as_array().unwrap();
    assert_eq!(map.iter().filter(|expert| **expert == 0).count(), 2);
    // The plan file tells the cap, and its bound is one under it.
    let plan = folder.path().join("capped.json").to_str().unwrap().to_string();
    let bare = folder.path().join("capped.npy").to_str().unwrap().to_string();
    report(hot, &["--max-replicas-per-expert", "2", "--out", &plan]);
    assert!(eplb(&["convert", &plan, &bare]).status.success());
    let loads = folder.path().join("loads.json").to_str().unwrap().to_string();
    let gap = |map: &str| json(&["check", &loads, map, "--gpus", "4"])["mean_gap"].as_f64().unwrap();
    assert!(json(&["check", &loads, &plan])["mean_gap"].as_f64().unwrap() < 0.01 && gap(&bare) > 0.3);
    // Where a layer is better with an expert twice on a GPU, both maxima are told, under a cap too.
    let small = "[[44, 30, 20, 10, 7, 7]]";
    for more in [&[][..], &["--max-replicas-per-expert", "3"]] {
        let won = &report(small, more)["duplicates_win"][0];
        assert!(won["greedy_max"].as_f64() < won["max"].as_f64(), "{won}");
    }
}

#[test]
fn help_completions_and_manual_are_whole() {
    let all = stdout(&eplb(&["--help"]));
    let (_, all) = all.split_once("Commands:\n").unwrap();
    let verbs =
        all.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    let verbs: Vec<&str> = verbs.filter(|verb| *verb != "help").collect();
    assert!(verbs.len() > 10, "{verbs:?}");
    for verb in verbs {
        let help = stdout(&eplb(&[verb, "--help"]));
        assert!(help.contains("Exit codes: 0 ") && help.contains("Examples:"), "{verb}: {help}");
    }
    let help = stdout(&eplb(&["plan", "--help"]));
    for part in [
        "(needed)",
        "[possible values: scenarios, forecast]",
        "tensorrt-llm",
        "[default: auto]",
        "thorough, scenarios, help]",
    ] {
        assert!(help.contains(part), "{part}: {help}");
    }
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(stdout(&eplb(&["completions", shell])).contains("max-replicas-per-expert"), "{shell}");
    }
    let page = stdout(&eplb(&["man", "plan"]));
    assert!(page.contains(".TH") && page.contains("max\\-replicas\\-per\\-expert"), "{page}");
    assert_refused(&["man", "fly"], "verb fly is none of this command");
}

#[test]
fn first_steps_are_answered_with_what_would_do() {
    let said = |output: &std::process::Output| String::from_utf8(output.stderr.clone()).unwrap();
    let none = eplb(&[]);
    assert_eq!(none.status.code(), Some(2));
    assert!(said(&none).contains("Usage:") && said(&none).contains("advise"), "{}", said(&none));
    let folder = tempfile::tempdir().unwrap();
    let loads = write(folder.path(), "loads.json", b"[[90,30,20,10],[7,5,60,8]]");
    assert_refused(&[&loads], "is a file, not a command: `eplb advise");
    assert_refused(&["plan", &loads, "--gpus", "2"], "eplb advise LOADS --gpus P tells how many pay");
    assert_refused(
        &["check", &loads],
        "were not provided: <PLAN>: eplb check <LOADS> <PLAN>; --help tells more",
    );
    assert_refused(
        &["advise", &loads, "--gpus", "2", "--expert-bytes", "44 apples"],
        "such as 44040192 or 42MiB",
    );
    // Earlier programs are told of apart.
    let preset = eplb(&["plan", &loads, "--preset", "gen0"]);
    assert!(said(&preset).contains("thorough, scenarios, help]"), "{}", said(&preset));
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (plan, map) = (path("plan.json"), path("map.json"));
    let shape = ["--replicas", "6", "--gpus", "3", "--device", "cpu"];
    assert!(eplb(&[&["plan", &loads, "--out", &plan], &shape[..]].concat()).status.success());
    assert!(eplb(&["convert", &plan, &map, "--format", "sglang"]).status.success());
    assert_refused(&["report", &plan, &loads, "-o", &path("page.html")], "it holds a map, not loads");
    // The map that runs tells how many replicas there are.
    let next = eplb(&["plan", &loads, "--previous", &map, "--gpus", "3", "--expert-bytes", "1kB"]);
    let text = stdout(&next);
    assert!(
        text.contains("6 replicas on 3 GPUs") && text.contains("before the moves"),
        "{text}{}",
        said(&next)
    );
}
