//! Many pods: one after another, or several at a time; what they take while they are there.

use crate::Failure;
use crate::life::{self, Network, Running, milliseconds};
use crate::memory;
use crate::subject::Subject;
use crate::table::Section;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Many pods.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crowd {
    pub(crate) name: &'static str,
    pods: usize,
    at_once: usize,
    network: Network,
}

/// One after another.
pub(crate) const IN_A_ROW: Crowd =
    Crowd { name: "50 pods in a row, host network", pods: 50, at_once: 1, network: life::HOST };
/// Ten at a time.
pub(crate) const AT_ONCE: Crowd =
    Crowd { name: "100 pods, 10 at a time, bridge", pods: 100, at_once: 10, network: life::BRIDGE };
/// How long the machine is watched for idle work.
const IDLE: Duration = Duration::from_secs(5);

/// Brings them up on one runtime after the other, looks at them, and takes them down.
pub(crate) async fn measure(subjects: &mut [Subject], image: &str, crowd: Crowd) -> Section {
    let mut section = Section::new(subjects, crowd.name);
    for (place, subject) in subjects.iter().enumerate() {
        let mut running = Vec::new();
        if let Err(error) = one(subject, image, crowd, (place, &mut section, &mut running)).await {
            section.failed(place, &error);
        }
        let since = Instant::now();
        match all_down(subject, crowd, running).await {
            Ok(()) => section.add(place, ("all down", "ms"), milliseconds(since)),
            Err(error) => section.failed(place, &error),
        }
    }
    section
}

async fn one(
    subject: &Subject,
    image: &str,
    crowd: Crowd,
    (place, section, running): (usize, &mut Section, &mut Vec<Running>),
) -> Result<(), Failure> {
    let since = Instant::now();
    let mut tasks = JoinSet::new();
    let mut next = 0;
    let mut outcome: Result<(), Failure> = Ok(());
    while next < crowd.pods || !tasks.is_empty() {
        while next < crowd.pods && tasks.len() < crowd.at_once {
            let mut client = subject.runtime.clone();
            let (image, name) = (image.to_owned(), format!("crowd-{}-{next}", crowd.pods));
            let up = async move { life::up(&mut client, &image, (crowd.network, name)).await };
            tasks.spawn(async move { up.await.map_err(|error| error.to_string()) });
            next += 1;
        }
        match tasks.join_next().await {
            Some(Ok(Ok((times, pod)))) => {
                running.push(pod);
                let [.., (_, up)] = times;
                section.add(place, ("one pod up", "ms"), up);
            }
            Some(Ok(Err(error))) => {
                outcome = Err(error.into());
                next = crowd.pods;
            }
            Some(Err(error)) => outcome = Err(error.into()),
            None => {}
        }
    }
    outcome?;
    section.add(place, ("all up", "ms"), milliseconds(since));
    memory::crowd(subject, crowd.pods, (place, section));
    let before = memory::cpu(subject);
    tokio::time::sleep(IDLE).await;
    let used = memory::cpu(subject) - before;
    section.add(place, ("idle, of one core", "%"), used / IDLE.as_secs_f64() * 100.0);
    Ok(())
}

async fn all_down(subject: &Subject, crowd: Crowd, running: Vec<Running>) -> Result<(), Failure> {
    let mut tasks = JoinSet::new();
    let mut outcome = Ok(());
    for pod in running {
        let mut client = subject.runtime.clone();
        let down = async move { life::down(&mut client, pod).await };
        tasks.spawn(async move { down.await.map(drop).map_err(|error| error.to_string()) });
        if tasks.len() >= crowd.at_once
            && let Some(done) = tasks.join_next().await
        {
            outcome = outcome.and(done?);
        }
    }
    while let Some(done) = tasks.join_next().await {
        outcome = outcome.and(done?);
    }
    outcome.map_err(Failure::from)
}
