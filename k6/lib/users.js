// The users that a run reads and writes: its own, so that nobody's data is changed, and gone when it ends.
import { fail } from 'k6';
import { send } from './requests.js';

const PAGE = 100;

/** Makes the run's users; without writes, takes those that are there. */
export function prepare(run) {
  if (run.writes > 0 && !run.token) {
    fail('writes need API_TOKEN or API_TOKEN_FILE; WRITES=0 sends reads only');
  }
  const ids = run.writes > 0 ? create(run) : existing(run);
  if (ids.length === 0) fail(`${run.target} has no users to read: give API_TOKEN, so that the run makes its own`);
  return { ids, mine: run.writes > 0 };
}

function create(run) {
  const name = `k6-${Date.now().toString(36)}`;
  const ids = [];
  for (let n = 1; n <= run.users; n += 1) {
    const body = { name: `User ${n}`, email: `${name}-${n}@example.com` };
    const answer = send(run, '/api/users', 'POST', '/api/users', { body, status: 201, mix: 'set-up' });
    if (answer.status !== 201) {
      remove(run, { ids, mine: true });
      fail(`can't make users on ${run.target}: ${answer.status} ${answer.error || answer.body}`);
    }
    ids.push(answer.json('user.id'));
  }
  return ids;
}

function existing(run) {
  const ids = [];
  for (let after = ''; after !== null && ids.length < run.users; ) {
    const path = `/api/users?limit=${PAGE}${after && `&after=${after}`}`;
    const answer = send(run, '/api/users', 'GET', path, { mix: 'set-up' });
    if (answer.status !== 200) fail(`can't list users on ${run.target}: ${answer.status} ${answer.error}`);
    ids.push(...answer.json('users').map((user) => user.id));
    after = answer.json('next');
  }
  return ids.slice(0, run.users);
}

/** Takes away what `prepare` made. */
export function remove(run, { ids, mine }) {
  if (!mine) return;
  for (const id of ids) send(run, '/api/users/{id}', 'DELETE', `/api/users/${id}`, { status: 204, mix: 'set-up' });
}
