// Draws from k6/lib/zipf.js and compares with what the distribution says; k6 exits with 99 when they differ.
import { check } from 'k6';
import { zipf } from '../../../k6/lib/zipf.js';

export const options = { thresholds: { checks: ['rate==1'] } };

// Seeded, so that a run is like the one before.
let state = 1;
const random = () => {
  state = (state * 48271) % 2147483647;
  return state / 2147483647;
};

export default function () {
  const draws = 100000;
  for (const [count, skew] of [[100, 1], [100, 1.2], [10000, 0.8], [2, 0], [1, 1]]) {
    const draw = zipf(count, skew, random);
    const seen = {};
    for (let n = 0; n < draws; n += 1) {
      const rank = draw();
      seen[rank] = (seen[rank] || 0) + 1;
    }
    let sum = 0;
    for (let rank = 1; rank <= count; rank += 1) sum += Math.pow(rank, -skew);
    for (const rank of [1, 2, 5, 50].filter((rank) => rank <= count)) {
      const due = Math.pow(rank, -skew) / sum;
      // Five standard deviations.
      const off = 5 * Math.sqrt((due * (1 - due)) / draws);
      const share = (seen[rank] || 0) / draws;
      check(share, { [`rank ${rank} of ${count}, skew ${skew}`]: (s) => Math.abs(s - due) <= off });
    }
    const inside = Object.keys(seen).every((rank) => rank >= 1 && rank <= count);
    check(inside, { [`ranks of ${count}`]: (ok) => ok });
  }
}
