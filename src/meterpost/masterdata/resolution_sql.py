"""The joins of resolution, in DuckDB's SQL over a snapshot's tables; moments are microseconds."""

#: Moments inside the periods at which an item, a price or a customer changes.
CUTS = """
CREATE TEMP TABLE cuts AS
SELECT DISTINCT kind, id, cut FROM (
    SELECT 'item' AS kind, id, unnest([valid_from, valid_to]) AS cut FROM items
    UNION ALL SELECT 'price', id, unnest([valid_from, valid_to]) FROM prices
    UNION ALL SELECT 'customer', id, unnest([valid_from, valid_to]) FROM customers
) WHERE cut > $first AND cut < $last
"""

BILLING_LINES = """
WITH terms AS (
    SELECT c.id AS contract, c.customer, c.currency, c.zone, c.payment_term,
           p.period_start, p.period_end,
           greatest(c.valid_from, p.period_start) AS s, least(c.valid_to, p.period_end) AS e
    FROM contracts c JOIN periods p
      ON p.billing_interval = c.billing_interval
     AND p.billing_anchor = c.billing_anchor AND p.zone = c.zone
    WHERE c.valid_from < p.period_end AND c.valid_to > p.period_start
), spans AS (
    SELECT row_number() OVER () AS n, t.* EXCLUDE (s, e),
           l.id AS line, l.meter, l.item, l.price, l.tax_category, l.revenue_account,
           l.partial_period, l.description,
           greatest(t.s, l.valid_from) AS s, least(t.e, l.valid_to) AS e
    FROM contract_lines l JOIN terms t ON t.contract = l.contract
    WHERE l.valid_from < t.e AND l.valid_to > t.s
      AND (l.meter IS NULL OR l.meter IN (SELECT id FROM meters))
), definitions AS (
    SELECT id, valid_from, valid_to, dense_rank() OVER (ORDER BY definition) AS version FROM prices
), starts AS (
    SELECT n, s FROM spans
    UNION
    SELECT n, k.cut FROM spans JOIN cuts k
      ON (k.kind = 'item' AND k.id = item) WHERE k.cut > s AND k.cut < e
    UNION
    SELECT n, k.cut FROM spans JOIN cuts k
      ON (k.kind = 'price' AND k.id = price) WHERE k.cut > s AND k.cut < e
    UNION
    SELECT n, k.cut FROM spans JOIN cuts k
      ON (k.kind = 'customer' AND k.id = customer) WHERE k.cut > s AND k.cut < e
), parts AS (
    SELECT n, s, lead(s) OVER (PARTITION BY n ORDER BY s) AS e FROM starts
)
SELECT q.s, coalesce(q.e, f.e) AS part_end, coalesce(f.payment_term, u.payment_term),
       coalesce(f.description, i.name, f.line),
       f.contract, f.period_start, f.period_end, f.line, f.meter, f.item, p.id, p.version,
       f.currency, f.customer,
       coalesce(f.tax_category, i.tax_category, u.tax_category),
       coalesce(f.revenue_account, i.revenue_account),
       f.partial_period, coalesce(i.unit, ''), f.zone
FROM parts q JOIN spans f ON f.n = q.n
LEFT JOIN items i ON i.id = f.item AND i.valid_from <= q.s AND i.valid_to > q.s
LEFT JOIN definitions p ON p.id = f.price AND p.valid_from <= q.s AND p.valid_to > q.s
LEFT JOIN customers u ON u.id = f.customer AND u.valid_from <= q.s AND u.valid_to > q.s
ORDER BY f.contract, f.period_start, f.line, q.s
"""

#: Subjects with the contract that their usage falls under, as long as it does.
_SUBJECTS = """
subjects AS (
    SELECT k.system AS source, k.external_id AS subject, s.contract,
           greatest(k.valid_from, s.valid_from) AS s, least(k.valid_to, s.valid_to) AS e
    FROM crosswalk k JOIN subscriptions s ON s.id = k.canonical_id
    WHERE k.kind = 'subject' AND k.valid_from < s.valid_to AND k.valid_to > s.valid_from
)
"""


ASSIGNMENTS = f"""
WITH {_SUBJECTS}
SELECT b.line, b.meter, j.source, j.subject,
       greatest(b.s, j.s) AS start_utc, least(b.e, j.e) AS end_utc
FROM billing b JOIN subjects j ON j.contract = b.contract
WHERE b.s < j.e AND b.e > j.s
ORDER BY ALL
"""  # noqa: S608

#: Subjects with the lines that their usage falls under.
_COVERED = f"""
{_SUBJECTS}, covered AS (
    SELECT l.id AS line, l.meter, j.source, j.subject, j.contract,
           greatest(l.valid_from, c.valid_from, j.s) AS s, least(l.valid_to, c.valid_to, j.e) AS e
    FROM contract_lines l
    JOIN contracts c ON c.id = l.contract
    JOIN subjects j ON j.contract = l.contract
    WHERE greatest(l.valid_from, c.valid_from, j.s) < least(l.valid_to, c.valid_to, j.e)
)
"""  # noqa: S608

COVERAGE = f"""
WITH {_COVERED}
SELECT line, meter, source, subject,
       greatest(s, $first) AS start_utc, least(e, $last) AS end_utc
FROM covered
WHERE s < $last AND e > $first AND meter IN (SELECT id FROM meters)
ORDER BY ALL
"""  # noqa: S608

CLASSIFY = f"""
WITH {_COVERED}, linked AS (
    SELECT a.*, k.canonical_id AS subscription,
           coalesce(a.first_at, greatest(k.valid_from, $first)) AS judged_at
    FROM asked a LEFT JOIN crosswalk k
      ON k.kind = 'subject' AND k.system = a.source AND k.external_id = a.subject
     AND k.valid_from <= coalesce(a.first_at, $last - 1)
     AND k.valid_to > coalesce(a.first_at, $first)
    QUALIFY row_number() OVER (PARTITION BY a.ordinal ORDER BY k.valid_from) = 1
), owned AS (
    SELECT k.*, s.customer, s.contract
    FROM linked k LEFT JOIN subscriptions s ON s.id = k.subscription
    QUALIFY row_number() OVER (
        PARTITION BY k.ordinal
        ORDER BY (s.valid_from <= k.judged_at AND s.valid_to > k.judged_at) DESC NULLS LAST,
                 s.valid_from DESC
    ) = 1
)
SELECT o.subscription, o.customer, o.contract,
       CASE WHEN o.subscription IS NULL THEN 'unmatched'
            WHEN EXISTS (
                SELECT 1 FROM covered v
                WHERE v.meter = o.meter AND v.source = o.source AND v.subject = o.subject
                  AND v.s <= o.judged_at AND v.e > o.judged_at
            ) THEN 'elsewhere'
            ELSE 'no_contract' END AS reason
FROM owned o ORDER BY o.ordinal
"""  # noqa: S608
