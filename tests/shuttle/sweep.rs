//! A scheduler that leaves nothing to chance: tasks run by priority, and once, somebody loses his.
//!
//! For every order of priorities among the tasks, and for every step at which there is a choice,
//! there is one schedule in which the task that runs there falls behind all others. So a mistake
//! that shows when one task is held up at one place, while others go on, is found, wherever that
//! place is. PCT of depth 2 draws from the same schedules.

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

pub(crate) struct Sweep {
    /// Orders of priorities still to come; the first one is on.
    orders: Vec<Vec<usize>>,
    /// The task of which not every step is looked at, but each time that many.
    seldom: (TaskId, usize),
    /// The step at which priorities change.
    at: usize,
    /// Steps so far with a choice, that are looked at; `None` before the first schedule.
    steps: Option<usize>,
    /// Of the task that is looked at seldom, all.
    its: usize,
    /// Of each task, the greater the sooner.
    priorities: Vec<isize>,
    lowest: isize,
}

impl Sweep {
    /// Of that many tasks beside the first, which makes them and waits for them, and comes before
    /// all. The last but one is held up only at each `stride`th of its steps.
    pub(crate) fn over(tasks: usize, stride: usize) -> Self {
        Self {
            orders: orders((1..=tasks).collect()),
            seldom: (TaskId::from(tasks - 1), stride),
            at: 0,
            steps: None,
            its: 0,
            priorities: Vec::new(),
            lowest: 0,
        }
    }
    fn priority(&self, task: TaskId) -> isize {
        self.priorities.get(usize::from(task)).copied().unwrap_or(0)
    }
    fn demote(&mut self, task: TaskId) {
        self.lowest -= 1;
        let task = usize::from(task);
        self.priorities
            .resize(self.priorities.len().max(task + 1), 0);
        self.priorities[task] = self.lowest;
    }
}

/// Every order of them.
fn orders(tasks: Vec<usize>) -> Vec<Vec<usize>> {
    if tasks.len() < 2 {
        return vec![tasks];
    }
    let with_last = |last: usize| {
        let others = tasks.iter().copied().filter(|t| *t != last).collect();
        let mut all = orders(others);
        all.iter_mut().for_each(|order| order.push(last));
        all
    };
    tasks.iter().copied().flat_map(with_last).collect()
}

impl Scheduler for Sweep {
    fn new_execution(&mut self) -> Option<Schedule> {
        match self.steps {
            None => {}
            Some(steps) if self.at < steps => self.at += 1,
            // The change did not come any more: that order has been run through.
            Some(_) => {
                self.orders.remove(0);
                self.at = 0;
            }
        }
        let order = self.orders.first()?;
        self.priorities = vec![isize::MAX; order.len() + 1];
        for (priority, task) in (1..).zip(order) {
            self.priorities[*task] = priority;
        }
        (self.steps, self.its, self.lowest) = (Some(0), 0, 0);
        Some(Schedule::new(0))
    }
    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        let ids = || runnable.iter().map(|t| t.id());
        if runnable.len() > 1 && current.is_some_and(|task| usize::from(task) > 0) {
            let (task, stride) = self.seldom;
            self.its += usize::from(current == Some(task));
            let counts = current != Some(task) || self.its.is_multiple_of(stride);
            let steps = self.steps.as_mut().expect("begun");
            *steps += usize::from(counts);
            let changes = counts && *steps == self.at;
            let held_up = current.filter(|_| changes || is_yielding);
            held_up.into_iter().for_each(|task| self.demote(task));
        }
        ids().max_by_key(|id| self.priority(*id))
    }
    fn next_u64(&mut self) -> u64 {
        0
    }
}
