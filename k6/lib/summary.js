// What a run says at its end: a few lines on the terminal, everything as JSON.

const TREND = ['med', 'p(90)', 'p(95)', 'p(99)', 'p(99.9)', 'max'];

/** The statistics that k6 shall keep. */
export const trend = ['avg', 'min', ...TREND];

const pick = (data, name, value, usual = 0) => {
  const metric = data.metrics[name];
  return metric && metric.values[value] !== undefined ? metric.values[value] : usual;
};

const crossed = (data) =>
  Object.entries(data.metrics).flatMap(([name, metric]) =>
    Object.entries(metric.thresholds || {})
      .filter(([, threshold]) => !threshold.ok)
      .map(([threshold]) => `${name}: ${threshold}`),
  );

function lines(script, run, data) {
  const latency = (kind) => {
    const value = (stat) => pick(data, `http_req_duration{mix:api,kind:${kind}}`, stat).toFixed(1);
    return `${kind.padEnd(6)} ${TREND.map((stat) => `${stat} ${value(stat)}`).join('   ')}   ms`;
  };
  const failed = pick(data, 'http_req_failed{mix:api}', 'passes');
  const missed = crossed(data);
  const reached = pick(data, 'reached_rate', 'value');
  return [
    '',
    `${script} against ${run.target}`,
    `       ${pick(data, 'http_reqs{mix:api}', 'count')} requests, ${failed} failed, ` +
      `${pick(data, 'checks{mix:api}', 'fails')} wrong, ${pick(data, 'dropped_iterations', 'count')} not sent`,
    latency('read'),
    latency('write'),
    ...(reached > 0 ? [`at the end ${Math.round(reached)} requests/s were being sent`] : []),
    ...(missed.length > 0 ? ['missed:', ...missed.map((line) => `       ${line}`)] : ['every objective met']),
    '',
  ].join('\n');
}

/** k6's `handleSummary` of a script. */
export function summary(script, run) {
  return (data) => {
    const result = {
      script,
      target: run.target,
      ended: new Date().toISOString(),
      settings: { ...run, token: undefined },
      missed: crossed(data),
      metrics: data.metrics,
      seconds: data.state.testRunDurationMs / 1000,
    };
    return {
      stdout: lines(script, run, data),
      [`${run.results}/${script}.json`]: `${JSON.stringify(result, null, 2)}\n`,
    };
  };
}
