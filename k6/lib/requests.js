// How one request is sent: trace context, tags, and whether its answer was right.
import http from 'k6/http';
import { check } from 'k6';

const hex = (digits) => {
  let text = '';
  while (text.length < digits) text += Math.floor(Math.random() * 0x100000000).toString(16).padStart(8, '0');
  return text;
};

/** A new trace id, with the W3C header that carries it; `share` of them ask to be sampled. */
function trace(share) {
  const id = hex(32);
  return { id, header: `00-${id}-${hex(16)}-${Math.random() < share ? '01' : '00'}` };
}

let told = 0;

/**
 * Sends it and checks status and body. `route` names the template, so that k6 keeps one series for it and not one for
 * each address; `mix` marks what the objectives are about: set-up and clean-up aren't.
 */
export function send(run, route, method, path, { body, status = 200, contains = '', mix = 'api' } = {}) {
  const { id, header } = trace(run.traced);
  const headers = { traceparent: header };
  if (method !== 'GET') headers.Authorization = `Bearer ${run.token}`;
  if (body) headers['Content-Type'] = 'application/json';
  const answer = http.request(method, run.target + path, body ? JSON.stringify(body) : null, {
    headers,
    tags: { name: `${method} ${route}`, kind: method === 'GET' ? 'read' : 'write', mix },
    responseCallback: http.expectedStatuses(status),
    timeout: '15s',
  });
  const right = check(
    answer,
    { 'status and body are right': (a) => a.status === status && (a.body || '').includes(contains) },
    { mix },
  );
  // The first few of each client are enough to look into the service's log or Jaeger.
  if (!right && told < 3) {
    told += 1;
    const what = answer.error || (answer.body || '').slice(0, 200);
    console.warn(`${method} ${path}: ${answer.status} ${what} (trace ${id})`);
  }
  return answer;
}
