/**
 * The state of a gateway, as the page gets it. The script of the page is checked against these types, so this file imports nothing that
 * needs Node.
 */
import type * as Budget from "floodgate/Budget"
import type * as Events from "floodgate/Events"
import type * as Governor from "floodgate/Governor"
import type * as Places from "floodgate/Places"
import type * as Spending from "floodgate/Spending"
import type * as Trees from "floodgate/Trees"

/** The usage and cost of one key's calls since the gateway started. */
export interface KeyActivity {
  readonly calls: number
  readonly inputTokens: number
  readonly outputTokens: number
  readonly dollars: number
  /** The number of its calls to models without a price, which are not in `dollars`. */
  readonly unpriced: number
  /** Milliseconds since the epoch. */
  readonly lastAt: number
}

/** The usage, cost and failures of one agent's calls. */
export interface AgentActivity extends KeyActivity {
  readonly refused: number
  readonly failed: number
}

/** The figures of one job, or of several. */
interface JobSums extends Omit<AgentActivity, "lastAt"> {
  /** Calls that were not sent yet. */
  readonly waiting: number
  /** Calls that were sent, and have not ended. */
  readonly running: number
  /** The agents that its conversations show, of calls that name none. */
  readonly inferredAgents: number
  /** The time of all calls that have ended, from their arrival to their last attempt. */
  readonly waitedMillis: number
}

/** One job. A job has the name that its calls give it, or that of its agent. */
export interface JobActivity extends JobSums {
  readonly name: string
  /** The name of its caller's key. */
  readonly caller: string
  readonly lastAt: number
}

/** The sum of the jobs that are not listed. */
export interface OtherJobs extends JobSums {
  readonly jobs: number
}

/** The activity of all agents in one minute. */
export interface Minute {
  readonly at: number
  readonly calls: number
  readonly tokens: number
  readonly dollars: number
}

/** The pressure of the limits in one minute. */
export interface PressureMinute {
  readonly at: number
  /** How many calls were rejected with 429. */
  readonly rejected: number
  /** How many calls began to wait. */
  readonly waited: number
}

/** The use of a job, or of one of its agents, through this gateway. */
export interface JobUse {
  readonly tokens: number
  /** Without calls of models that have no price. */
  readonly dollars: number
  /** From the arrival of each call to its last attempt. */
  readonly waitedMillis: number
}

/** The agents of a job that a rule caps. */
export interface JobTree extends Trees.TreeStatus, JobUse {
  readonly id: string
  readonly name: string
  readonly list: ReadonlyArray<Trees.AgentInTree & JobUse>
  /** When one of its agents last called. Milliseconds since the epoch. */
  readonly usedAt: number
}

/** The state of a cap. */
export interface CapStatus extends Spending.Status {
  readonly id: string
  readonly name: string
  readonly dollars: number
}

/**
 * How many bytes of text a token has, and what that was learned from. It has no age, because it depends on the text and the model and
 * not on the time; the numbers of answers and prompts say how sure it is. It follows the last eight prompts or so.
 */
export interface TextRatio {
  readonly pool: string
  /** Undefined for the calls of the whole pool. */
  readonly kind: string | undefined
  readonly bytesPerToken: number
  /** How many answers told the tokens of their prompts, and how many prompts the provider has counted before they were sent. */
  readonly answers: number
  readonly counted: number
  /** The overlap of the pool's calls with earlier ones. Undefined for a kind, and until an answer has told. */
  readonly prefixes: PrefixRatio | undefined
}

/**
 * How the calls of a pool read the prefixes that should be in the provider's cache. Tokens and times are moving averages over the last
 * eight or so.
 */
export interface PrefixRatio {
  /** The part of such a prefix that was read: the median of the last 64. */
  readonly hit: number
  readonly tokens: number
  /** For how many milliseconds nobody had used it. */
  readonly unusedFor: number
}

/** A call that is parked until a reset, without what it sends. */
export interface ParkedTicket {
  readonly id: string
  /** The name of its key. */
  readonly key: string
  readonly agent: string
  readonly bytes: number
  readonly order: number
  readonly at: number
  /** `"unknown"` was sent, and not answered. */
  readonly state: "waiting" | "due" | "sent" | "answered" | "unknown" | "cancelled"
}

/** The state of a gateway. Times are milliseconds since the epoch. */
export interface Snapshot {
  readonly at: number
  /** How many requests are waiting or running. */
  readonly open: number
  /** Whether the last requests are remembered, for those who have the token for them. */
  readonly remembersRequests: boolean
  /** Whether operators can add keys: the gateway has keys and an admin token. */
  readonly addsKeys: boolean
  readonly upstreams: ReadonlyArray<{ readonly name: string; readonly address: string }>
  readonly pools: ReadonlyArray<Budget.PoolStatus & { readonly name: string }>
  /** Why calls go to each place of a model with several, or do not. */
  readonly places: ReadonlyArray<Places.PlaceStatus>
  /** The most recently active first. */
  readonly agents: ReadonlyArray<AgentActivity & { readonly name: string }>
  /** Those with open calls first, then the most recently active. */
  readonly jobs: ReadonlyArray<JobActivity>
  readonly otherJobs: OtherJobs
  /** The caps, the largest used part first. */
  readonly caps: ReadonlyArray<CapStatus>
  /** The agents of the jobs whose agents are capped, those of the largest jobs first. */
  readonly trees: ReadonlyArray<JobTree>
  readonly windows: ReadonlyArray<Governor.WindowStatus>
  /** The first calls that are parked until a reset with a ticket, and how many there are in all. */
  readonly tickets: { readonly list: ReadonlyArray<ParkedTicket>; readonly total: number }
  readonly estimates: ReadonlyArray<TextRatio>
  /** The most expensive first. */
  readonly keys: ReadonlyArray<KeyActivity & { readonly name: string }>
  /** The minutes of the last hour in which something happened. */
  readonly minutes: ReadonlyArray<Minute & PressureMinute>
  /** The latest first. */
  readonly events: ReadonlyArray<Events.Event>
}

/** Fields that may be infinite, which JSON sends as null. */
type Unbounded = "allowed" | "expectedMillis" | keyof NonNullable<Budget.PoolStatus["dimensions"]["tokens"]>

/** A value, as JSON represents it. */
type AsJson<A> = { readonly [K in keyof A]: K extends Unbounded ? A[K] | null : AsJson<A[K]> }

/** The state of a gateway, read from the JSON of `/floodgate/status` or of the stream of events. */
export type GatewayStatus = AsJson<Snapshot>

/**
 * The end of a request: it was answered, or it is no call and was passed on; the gateway refused it; its last attempt failed; its client
 * left; or the provider stopped in the middle of the answer.
 */
export type RequestOutcome = "answered" | "passed" | "refused" | "failed" | "hung up" | "broke off"

/** The record of a request that has ended. */
export interface RequestRecord {
  /** When it arrived, in milliseconds since the epoch. */
  readonly at: number
  /** Null if no upstream serves its path. */
  readonly upstream: string | null
  /** Null unless it is a call. */
  readonly model: string | null
  /** The name of the caller's key, or `key-` and the beginning of its hash. Null if the caller was not let in. */
  readonly caller: string | null
  readonly job: string | null
  readonly agent: string | null
  /** The place that has answered; null if the model has no places. */
  readonly place: string | null
  readonly outcome: RequestOutcome
  /** The status that the client has received; null if it received none. */
  readonly status: number | null
  /** Why the gateway refused it, or why it failed; null for any other end. */
  readonly reason: string | null
  /** How often it was sent to a provider. */
  readonly attempts: number
  /** The time from its arrival to its last attempt. */
  readonly waitedMillis: number
  /** The time from its arrival to its end. */
  readonly millis: number
  /** Tokens of the whole prompt, cached or not, as they are billed; null if nothing was. */
  readonly inputTokens: number | null
  /** The part of the prompt that the provider read from its cache. */
  readonly cachedTokens: number | null
  readonly outputTokens: number | null
  /** Null if nothing was billed, or if the model has no price. */
  readonly dollars: number | null
}
