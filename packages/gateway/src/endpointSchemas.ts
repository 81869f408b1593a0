/**
 * The JSON that the gateway's own endpoints give and take. Their OpenAPI document is made from it, and what they send has its types.
 * Further fields may come, so a schema allows them.
 */
import * as Schema from "effect/Schema"
import { optional } from "./settings/values.ts"

const number = Schema.Finite
const text = Schema.String
const flag = Schema.Boolean
/** A value that is null where it is unknown, or unbounded. */
const orNull = Schema.NullOr
const list = Schema.Array
const object = Schema.Struct
const described = <S extends Schema.Top>(schema: S, description: string): S =>
  schema.annotate({ description }) as unknown as S

const at = described(number, "Milliseconds since the epoch")
const dimension = Schema.Literals(["requests", "inputTokens", "outputTokens", "tokens"])

// -----------------------------------------------------------------------------
// The status
// -----------------------------------------------------------------------------

const dimensionStatus = object({
  level: described(orNull(number), "What can be taken now; negative is debt"),
  capacity: orNull(number),
  perSecond: described(orNull(number), "The rate in use; 0 for a quota"),
  limitPerSecond: described(orNull(number), "Null while it is unknown")
})
const byDimension = <S extends Schema.Top>(schema: S) =>
  object({
    requests: optional(schema),
    inputTokens: optional(schema),
    outputTokens: optional(schema),
    tokens: optional(schema)
  })

const pool = object({
  name: text,
  dimensions: byDimension(dimensionStatus),
  known: list(
    object({
      what: Schema.Literals(["limit", "share", "inFlight"]),
      dimension: optional(dimension),
      value: described(number, "Per second; of a quota in all"),
      from: Schema.Literals(["stated", "headers", "rejections"]),
      ageMillis: optional(number)
    })
  ),
  inFlight: number,
  allowed: described(orNull(number), "The limit of calls in flight; null without one"),
  measured: optional(
    object({
      limit: described(number, "How many calls may be in flight, with the concurrency measured"),
      by: Schema.Literals(["start", "first tokens", "whole answers", "lost calls"]),
      begun: described(number, "Calls whose answer has begun"),
      waiting: described(number, "Calls that wait for their first token"),
      firstTokenMillis: optional(number),
      leastFirstTokenMillis: optional(number),
      ceiling: described(number, "The limit that lost calls set"),
      max: optional(described(number, "The maximum that was stated"))
    })
  ),
  queued: number,
  waiting: list(
    object({
      agent: text,
      job: optional(text),
      caller: optional(text),
      priority: number,
      charge: byDimension(number),
      waitedMillis: number,
      expectedMillis: described(orNull(number), "How long it is expected to wait from now; null if that is unknown"),
      dimension: optional(dimension)
    })
  ),
  pause: optional(object({ reason: Schema.Literals(["rateLimit", "ramp", "overload"]), leftMillis: number })),
  binding: optional(dimension)
})

const keyActivity = {
  name: text,
  calls: number,
  inputTokens: number,
  outputTokens: number,
  dollars: number,
  unpriced: described(number, "Calls to models without a price, which are not in dollars"),
  lastAt: at
}

const jobSums = {
  waiting: described(number, "Calls that were not sent yet"),
  running: described(number, "Calls that were sent, and have not ended"),
  calls: number,
  inferredAgents: described(number, "Agents that conversations show, of calls that name none"),
  refused: number,
  failed: number,
  waitedMillis: described(number, "From arrival to the last attempt, of all calls that have ended"),
  inputTokens: number,
  outputTokens: number,
  dollars: number,
  unpriced: number
}

const cap = object({
  id: text,
  name: text,
  dollars: described(number, "The cap"),
  spent: described(number, "In the period of the cap"),
  total: described(number, "Spent in all"),
  held: described(number, "Reserved for running calls"),
  limit: optional(number),
  left: optional(described(number, "The cap without what was spent")),
  until: optional(described(at, "When the period ends, or the first part of its window")),
  isReached: described(flag, "Whether calls are refused because the cap is spent"),
  queued: number,
  waiting: list(object({ agent: text, dollars: number, waitedMillis: number })),
  unpriced: number
})

const jobCaps = object({
  agents: optional(number),
  atOnce: optional(number),
  perHour: optional(number),
  depth: optional(number),
  tokens: optional(number),
  dollars: optional(number),
  calls: optional(number),
  reserve: optional(text)
})
const spent = object({ tokens: optional(number), dollars: optional(number), calls: optional(number) })
const stop = Schema.Literals(["none", "agents", "calls"])

const jobUse = {
  tokens: described(number, "Through this gateway"),
  dollars: number,
  waitedMillis: number
}

const tree = object({
  id: text,
  name: text,
  usedAt: at,
  agents: described(number, "In all"),
  atOnce: described(number, "With a call that runs, or ended less than five minutes ago"),
  perHour: described(number, "New ones in the last hour"),
  depth: number,
  caps: jobCaps,
  stop: described(stop, "Whether an operator has stopped new agents, or all calls"),
  refused: described(number, "New agents that this gateway has refused"),
  spent: described(spent, "Of caps on tokens, dollars and calls"),
  reserved: described(spent, "By calls that run"),
  list: list(object({ name: text, parent: optional(text), depth: number, since: at, isRunning: flag, ...jobUse })),
  ...jobUse
})

const event = <F extends Schema.Struct.Fields>(fields: F) => object({ at, pool: text, ...fields })
const ofAttempt = { agent: text, model: text, attempt: number }
const events = Schema.Union([
  event({
    type: Schema.Literal("rejection"),
    ...ofAttempt,
    verdict: Schema.Literals(["isolated", "exhausted", "ramp", "outage", "impossible"]),
    dimension: optional(dimension),
    until: optional(at)
  }),
  event({ type: Schema.Literal("wait"), agent: text, dimension: optional(dimension), until: at }),
  event({ type: Schema.Literal("retry"), ...ofAttempt, reason: text, until: at }),
  event({ type: Schema.Literal("retryDelayed"), ...ofAttempt, delayed: number, until: at }),
  event({ type: Schema.Literal("pause"), reason: Schema.Literals(["rateLimit", "ramp", "overload"]), until: at }),
  event({
    type: Schema.Literal("place"),
    agent: text,
    model: text,
    place: text,
    why: Schema.Literals(["sooner", "slow", "cheaper", "failed"]),
    waited: number,
    instead: text,
    insteadWait: optional(number)
  }),
  event({
    type: Schema.Literal("cap"),
    cap: text,
    isReached: flag,
    spent: number,
    left: number,
    limit: number,
    until: optional(at)
  })
])

const ticket = object({
  id: text,
  key: described(text, "The name of the key"),
  agent: text,
  bytes: number,
  order: number,
  at: described(number, "When its call may be sent again, in milliseconds since the epoch"),
  state: described(
    Schema.Literals(["waiting", "due", "sent", "answered", "unknown", "cancelled"]),
    "due: it may be sent now; unknown: it was sent, and not answered"
  )
})

export const status = object({
  at,
  open: described(number, "Requests that wait or run"),
  remembersRequests: described(flag, "Whether the last requests are remembered, for those who have the token for them"),
  addsKeys: described(flag, "Whether operators can add keys: the gateway has keys and an admin token"),
  upstreams: list(object({ name: text, address: text })),
  pools: list(pool),
  places: list(
    object({
      pool: text,
      state: described(
        Schema.Literals(["open", "untried", "full", "slow", "refused", "trial"]),
        "Why calls go there, or do not"
      ),
      answerMillis: optional(described(number, "How long an answer takes now")),
      triedAt: optional(described(number, "When a call tries it that is slow or has refused, at the earliest"))
    })
  ),
  agents: list(object({ ...keyActivity, refused: number, failed: number })),
  jobs: list(object({ name: text, caller: text, lastAt: at, ...jobSums })),
  otherJobs: object({ jobs: number, ...jobSums }),
  caps: list(cap),
  trees: described(list(tree), "The jobs that rules cap, with their agents"),
  windows: list(
    object({
      account: optional(text),
      name: text,
      used: number,
      share: optional(number),
      resetsAt: optional(at),
      dollars: optional(number),
      isRejected: flag,
      slowLane: object({ calls: number, dollars: number }),
      models: optional(list(text))
    })
  ),
  tickets: object({
    list: described(list(ticket), "The first of the calls that are parked until a reset with a ticket"),
    total: number
  }),
  estimates: list(
    object({
      pool: text,
      kind: optional(text),
      bytesPerToken: number,
      answers: number,
      counted: number,
      prefixes: optional(object({ hit: number, tokens: number, unusedFor: number }))
    })
  ),
  keys: list(object(keyActivity)),
  minutes: list(object({ at, calls: number, tokens: number, dollars: number, rejected: number, waited: number })),
  events: list(events)
})

// -----------------------------------------------------------------------------
// The last requests
// -----------------------------------------------------------------------------

export const outcome = Schema.Literals(["answered", "passed", "refused", "failed", "hung up", "broke off"])

export const requests = object({
  at,
  requests: list(
    object({
      at: described(number, "When it arrived, in milliseconds since the epoch"),
      upstream: orNull(text),
      model: described(orNull(text), "Null unless it is a call"),
      caller: described(
        orNull(text),
        "The name of its key, or `key-` and the beginning of a hash; null if it was not let in"
      ),
      job: described(orNull(text), "The job that it belongs to, which is its agent if it names none"),
      agent: orNull(text),
      place: described(orNull(text), "The place that has answered; null if the model has no places"),
      outcome,
      status: described(orNull(number), "The status that the client received; null for none"),
      reason: described(orNull(text), "Why the gateway refused it, or why it failed"),
      attempts: described(number, "How often it was sent to a provider"),
      waitedMillis: described(number, "From its arrival to its last attempt"),
      millis: described(number, "From its arrival to its end"),
      inputTokens: described(orNull(number), "The whole prompt, cached or not; null if nothing was billed"),
      cachedTokens: described(orNull(number), "The part of the prompt that was read from the cache"),
      outputTokens: orNull(number),
      dollars: described(orNull(number), "Null if nothing was billed, or if the model has no price")
    })
  )
})

// -----------------------------------------------------------------------------
// Advice and caps
// -----------------------------------------------------------------------------

const callSize = object({ inputTokens: number, outputTokens: number, seconds: optional(number) })

const answerToQuestion = {
  pool: text,
  agents: number,
  each: object({
    calls: number,
    first: callSize,
    later: callSize,
    growthTokens: optional(number),
    cachedShare: optional(number),
    pauseSeconds: optional(number)
  }),
  endSeconds: described(orNull(number), "When the last agent ends; null if never"),
  binding: described(text, "What limits the number, or how soon they end"),
  rangeSeconds: described(
    orNull(object({ from: number, to: number })),
    "Nine of ten jobs end within it, as earlier foreseen ends did; null while too few are known"
  ),
  assumptions: list(text),
  text: described(text, "The answer in a sentence or two")
}

export const advice = object({
  ...answerToQuestion,
  agents: described(number, "How many more agents help now"),
  running: number,
  atOnce: number,
  job: number,
  furtherAddsSeconds: number,
  ends: list(object({ agents: number, endSeconds: number })),
  places: list(object({ name: text, pool: text, agents: number })),
  caps: list(object({ name: text, agents: number, text })),
  saves: object({
    agents: described(number, "How many fewer agents run at once than if all start now"),
    promptTokens: described(number, "Tokens of prompts that all at once would send again, no longer cached"),
    dollars: described(
      orNull(number),
      "The price of these tokens; null if there are none, or if their price is not known"
    ),
    rejections: described(number, "The 429s that only all at once would get")
  }),
  harms: list(object({ by: described(text, "server, inFlight or spending"), text })),
  expiresAfterSeconds: number
})

export const forecast = object({
  ...answerToQuestion,
  waits: object({ p50Seconds: number, p95Seconds: number, p99Seconds: number })
})

export const capChange = object({
  cap: described(text, "The name or the id of the cap, as the status has them"),
  dollars: optional(described(number, "The new cap, until the configuration is read again")),
  reset: optional(described(flag, "Whether to forget what was spent in the period"))
})

export const changedCap = object({ id: text, name: text, dollars: number, spent: number })

export const jobChange = object({
  job: described(text, "The id of the job, as the status has it"),
  stop: described(stop, "Refuse new agents, or all calls, or neither")
})

export const changedJob = object({ id: text, name: text, stop })

export const keyChange = object({
  name: described(text, "The holder of the key, as rules and the page name it"),
  expires: optional(described(text, "The day from which the key is refused, such as 2027-01-01; otherwise never")),
  dollarsPerDay: optional(described(number, "The cap of the key")),
  priority: optional(described(number, "Of its calls; higher goes first")),
  remove: optional(described(flag, "Whether to remove the keys that were added with the name, instead"))
})

export const changedKey = object({
  name: text,
  key: optional(described(text, "The key itself, shown only now")),
  config: optional(
    object({
      keys: list(object({ name: text, sha256: text, expires: optional(text) })),
      rules: list(object({ key: optional(text), priority: optional(number) }))
    })
  ),
  removed: optional(described(number, "How many keys were removed"))
})

export const tickets = object({ at, tickets: list(ticket) })

export const cancelledTickets = object({ tickets: list(ticket) })

export const ticketChange = object({
  cancel: optional(described(text, "The id of a ticket")),
  cancelKey: optional(described(text, "The name of a key, all of whose tickets that wait are cancelled"))
})

export const failure = object({ error: described(text, "What is wrong, and what to do") })
