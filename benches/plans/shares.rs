//! Tables of shares: the time to make one, and balancedness on the next window with it.

use eplb_wgpu::rebalance::{RebalanceOptions, Rebalancer};
use eplb_wgpu::trace::{LoadHistory, Window};
use eplb_wgpu::{Cluster, Error, Loads, PlanOptions, check};

use crate::Bench;
use crate::race::{median, milliseconds};
use crate::report::{Report, columns};

/// Tables that are timed.
const RUNS: usize = 31;

/// Windows before the one that is scored.
const KNOWN: usize = 7;

impl Bench {
    /// Static tables and those of a batch, on connected plans of the series in the data folder.
    pub fn shares(&self, report: &mut Report) -> Result<(), Error> {
        let names = ["series", "cluster", "even", "static", "us a layer", "batch", "us a layer"];
        let title = format!(
            "Shares of a connected plan of a loop after {KNOWN} windows: balancedness on the next one, and medians of {RUNS} \
             tables, one thread"
        );
        report.table(&title, &columns(names));
        let Some(folder) = &self.data else { return Ok(()) };
        let cases = [
            ("gpt-oss-20b-mmlu.npy", "40 replicas, 8 GPUs", Cluster::new(40, 1, 1, 8)?),
            ("deepseek-v3-drift-semisynthetic.npy", "288 replicas, 32 GPUs", Cluster::new(288, 1, 1, 32)?),
            (
                "deepseek-v3-drift-semisynthetic.npy",
                "288 replicas, 4 nodes, 32 GPUs",
                Cluster::new(288, 8, 4, 32)?,
            ),
            ("deepseek-v2-lite-summary.npy", "72 replicas, 8 GPUs", Cluster::new(72, 1, 1, 8)?),
        ];
        for (file, name, cluster) in cases {
            let history = LoadHistory::read(&folder.join(file))?;
            let windows: Vec<Loads> =
                (0..=KNOWN).map(|at| history.loads(Window::Index(at))).collect::<Result<_, _>>()?;
            let cells = self.one_thread.install(|| self.tables(&windows, cluster))?;
            report.row(&[&[file.to_string(), name.to_string()], &cells[..]].concat());
        }
        Ok(())
    }

    /// Even, static with its time, and of a batch with its time.
    fn tables(&self, windows: &[Loads], cluster: Cluster) -> Result<[String; 5], Error> {
        let connected = |plan: PlanOptions| PlanOptions { connected: true, ..plan };
        let options = RebalanceOptions::default();
        let options = RebalanceOptions {
            plan: connected(options.plan.clone()),
            scenario_plan: connected(options.scenario_plan.clone()),
            ..options
        };
        let mut rebalancer = Rebalancer::new(self.cpu.clone(), cluster.clone(), options)?;
        let (known, next) = (&windows[..KNOWN], &windows[KNOWN]);
        let mut map = Vec::new();
        for window in known {
            rebalancer.observe(window.clone())?;
            let proposal = rebalancer.propose()?;
            map = proposal.plan().physical_to_logical().to_vec();
            rebalancer.apply(proposal.plan().placement().clone())?;
        }
        let timed = |work: &dyn Fn() -> Result<eplb_wgpu::Shares, Error>| {
            let (mut times, mut score) = (Vec::new(), 0.0);
            for _ in 0..RUNS {
                let start = std::time::Instant::now();
                let shares = work()?;
                times.push(milliseconds(start) * 1e3 / windows[0].layers() as f64);
                score = check::score_shares(next, &cluster, &map, shares.parts())?.balancedness();
            }
            Ok::<_, Error>((format!("{score:.4}"), format!("{:.1}", median(times))))
        };
        let even = check::score(next, &cluster, &map)?.balancedness();
        let (windows_score, windows_time) = timed(&|| self.cpu.shares(&cluster, &map, known))?;
        let (batch_score, batch_time) = timed(&|| self.cpu.batch_shares(&cluster, &map, next))?;
        Ok([format!("{even:.4}"), windows_score, windows_time, batch_score, batch_time])
    }
}
