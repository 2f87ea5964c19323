// Ranks drawn from a Zipf distribution by rejection inversion (Hörmann and Derflinger, 1996): no table, so that a
// million users cost a client as little memory as ten.

/** Draws ranks from 1 to `count`; rank r is r^-skew times as likely as rank 1. `random` is for tests. */
export function zipf(count, skew, random = Math.random) {
  // The integral of x^-skew from 1 to x, and its inverse.
  const area = skew === 1 ? Math.log : (x) => (Math.pow(x, 1 - skew) - 1) / (1 - skew);
  const inverse = skew === 1 ? Math.exp : (y) => Math.pow(1 + y * (1 - skew), 1 / (1 - skew));
  const weight = (x) => Math.pow(x, -skew);

  const first = area(1.5) - 1;
  const last = area(count + 0.5);
  // So near to a rank that no draw there can be refused.
  const near = 2 - inverse(area(2.5) - weight(2));
  return () => {
    for (;;) {
      const y = last + random() * (first - last);
      const x = inverse(y);
      const rank = Math.min(Math.max(Math.round(x), 1), count);
      if (rank - x <= near || y >= area(rank + 0.5) - weight(rank)) return rank;
    }
  };
}
