// Makes a k6 script of a shape of load, always in the open model: requests start when they are due, whether or not
// earlier ones were answered.
import exec from 'k6/execution';
import { Gauge } from 'k6/metrics';
import { settings } from './settings.js';
import { prepare, remove } from './users.js';
import { visit } from './mix.js';
import { summary, trend } from './summary.js';

const reached = new Gauge('reached_rate');
const objectives = JSON.parse(open(__ENV.OBJECTIVES || '../objectives.json'));

/** The objectives as thresholds; `abort` ends the run when one is missed. */
export function thresholds({ abort = false, afterSeconds = 0 } = {}) {
  const one = (threshold) => [{ threshold, abortOnFail: abort, delayAbortEval: `${afterSeconds}s` }];
  const percentile = +(objectives.latency.share * 100).toFixed(3);
  const lost = +(1 - objectives.availability).toFixed(6);
  return {
    'http_req_failed{mix:api}': one(`rate<${lost}`),
    'http_req_duration{mix:api}': one(`p(${percentile})<${objectives.latency.seconds * 1000}`),
    // Answers that came and were wrong.
    'checks{mix:api}': one(`rate>${objectives.availability}`),
    // Not sent, because CLIENTS others were still waiting for their answers: users would have waited, too.
    dropped_iterations: one('count<1'),
    'http_reqs{mix:api}': ['count>0'],
    // No limits: so that k6 keeps these apart.
    'http_req_duration{mix:api,kind:read}': ['max>=0'],
    'http_req_duration{mix:api,kind:write}': ['max>=0'],
    'http_reqs{mix:api,kind:write}': ['count>=0'],
  };
}

/**
 * Everything that a script exports. `usual` are its rate and duration when none are given, `stages` pairs of
 * [multiple of the rate, share of the duration]; each rises or falls linearly to its rate. With `abort` the first missed
 * objective ends the run.
 */
export function script(name, usual, stages, abort = false) {
  const run = settings(usual);
  const rate = (multiple) => Math.max(1, Math.round(run.rate * multiple));
  const scenario = {
    executor: 'ramping-arrival-rate',
    startRate: rate(stages[0][0]),
    timeUnit: '1s',
    stages: stages.map(([multiple, share]) => ({ target: rate(multiple), duration: `${run.seconds * share * 1000}ms` })),
    // All from the start: making one in the midst of a run takes longer than many requests.
    preAllocatedVUs: run.clients,
    maxVUs: run.clients,
    gracefulStop: '15s',
  };
  return {
    options: {
      scenarios: { [name]: scenario },
      thresholds: thresholds({ abort, afterSeconds: Math.min(10, run.seconds / 10) }),
      summaryTrendStats: trend,
      setupTimeout: '10m',
      teardownTimeout: '10m',
      userAgent: `plinth-k6/${name}`,
      // Addresses are asked again, as users' machines do: a balancer's name may move.
      dns: { ttl: '5s', select: 'roundRobin' },
    },
    setup: () => prepare(run),
    visit: ({ ids }) => {
      if (abort) reached.add(run.rate * exec.scenario.progress);
      visit(run, ids);
    },
    teardown: (data) => remove(run, data),
    handleSummary: summary(name, run),
  };
}
