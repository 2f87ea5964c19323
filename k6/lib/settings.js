// What a run can be told, from environment variables; docs/load-testing.md lists them.

function number(name, usual) {
  const text = __ENV[name];
  const value = text ? Number(text) : usual;
  if (!(value >= 0)) throw new Error(`${name}=${text} isn't a number from 0`);
  return value;
}

function seconds(name, usual) {
  const text = __ENV[name] || usual;
  const parts = /^([0-9.]+)(s|m|h)$/.exec(text);
  if (!parts) throw new Error(`${name}=${text} isn't a duration like 30s, 10m or 4h`);
  return Number(parts[1]) * { s: 1, m: 60, h: 3600 }[parts[2]];
}

function token() {
  const file = __ENV.API_TOKEN_FILE;
  // Several may be valid, with commas.
  return ((file ? open(file) : __ENV.API_TOKEN) || '').trim().split(',')[0];
}

/** Settings of this run; `usual` are the script's own rate and duration. */
export function settings(usual) {
  return {
    target: (__ENV.TARGET || 'http://localhost:8080').replace(/\/+$/, ''),
    token: token(),
    rate: number('RATE', usual.rate),
    seconds: seconds('DURATION', usual.duration),
    users: Math.max(1, number('USERS', 100)),
    skew: number('SKEW', 1),
    writes: number('WRITES', 0.05),
    traced: number('TRACED', 0.01),
    clients: Math.max(1, number('CLIENTS', usual.clients || 200)),
    results: __ENV.RESULTS || 'k6/results',
  };
}
