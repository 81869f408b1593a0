/**
 * What a budget must do, written the slow and obvious way: lists that are scanned, levels that are counted step by step,
 * and moments that are searched for. Nothing of the library's arithmetic is used.
 */
import { type Call, type Charge, Levels, type Rules, type Signal } from "./modelLevels.ts"

interface Flow {
  start: number
  turn: number
  /** What its next service costs more, or less. */
  owed: number
}

/** Calls that are let out one, two, four after the provider said no. */
interface Probe {
  readonly because: "limit" | "overload" | "unknown"
  since: number
  readonly counts: number
  allowed: number
  readonly open: Set<number>
  heardAt: number
  /** How many failed alone, one after the other, and until when nobody goes for that. */
  misses: number
  restsUntil: number
}

export class Model extends Levels {
  concurrency: number
  readonly admitted: Array<{ readonly id: number; readonly at: number }> = []
  readonly refused: Array<{ readonly id: number; readonly why: "EstimateTooLarge" | "QuotaExhausted" }> = []
  waiting: Array<Call> = []
  private flows = new Map<string, Flow>()
  private virtual = new Map<number, number>()
  private refunded = new Map<number, number>()
  private era = 0
  private turns = 0
  private probe: Probe | undefined
  /** Whether limits were known when they were last heard of. */
  private wereKnown: boolean

  constructor(rules: Rules, concurrency: number, headroom: number) {
    super(rules, headroom)
    this.concurrency = concurrency
    this.wereKnown = this.dims.size > 0
    // With no limits known the first call goes alone.
    if (this.dims.size === 0) this.probe = this.probing("unknown", 0, -Infinity, 1, [])
  }

  // What is seen from outside

  get inFlight(): number {
    return [...this.calls.values()].filter((call) => call.state === "open").length
  }

  get allowed(): number {
    return this.probe === undefined
      ? this.concurrency
      : Math.min(this.concurrency, this.inFlight - this.probe.open.size + this.probe.allowed)
  }

  // Events

  reserve(call: Pick<Call, "id" | "agent" | "priority" | "weight" | "charge">, first: boolean): void {
    const history = { turn: -1, takenAt: 0, spent: new Map(), moved: undefined, era: 0 }
    const unheard = { held: {}, left: new Map(), signal: undefined }
    const full: Call = { ...call, cost: 0, state: "waiting", ...history, ...unheard }
    this.calls.set(call.id, full)
    // Limits that a response taught are doubted when none has spoken of limits for an hour.
    if (this.tooLarge(full) && this.now - this.heardAt >= 3_600_000) {
      this.heardAt = this.now
      for (const dimension of this.dims.keys()) if (this.given[dimension] === undefined) this.dims.delete(dimension)
      this.resize(this.given, undefined)
    }
    this.price(full)
    if (!(this.waiting.length === 0 && this.mayGo(full))) {
      if (this.tooLarge(full)) return this.refuse(full, "EstimateTooLarge")
      if (this.overQuota(full)) return this.refuse(full, "QuotaExhausted")
    }
    if (this.waiting.length === 0 && this.mayGo(full)) {
      // Nobody had to wait: what agents were served before counts no more.
      this.flows.clear()
      this.virtual.clear()
      this.refunded.clear()
      this.era++
      return this.admit(full)
    }
    const key = this.keyOf(full)
    const { priority } = full
    const virtual = (this.virtual.get(priority) ?? 0) - (this.refunded.get(priority) ?? 0)
    if (!this.flows.has(key)) this.flows.set(key, { start: virtual, turn: 0, owed: 0 })
    const flow = this.flows.get(key)!
    if (!this.waiting.some((other) => this.keyOf(other) === key)) {
      const starts = this.backlogged(priority).map((other) => other.start)
      flow.start = Math.max(flow.start + flow.owed, starts.length === 0 ? 0 : Math.min(...starts))
      flow.owed = 0
      flow.turn = this.turns++
    }
    if (first) this.waiting.unshift(full)
    else this.waiting.push(full)
    this.settleQueue()
  }

  cancel(id: number): void {
    const call = this.calls.get(id)!
    call.state = "gone"
    this.waiting = this.waiting.filter((other) => other !== call)
    this.settleQueue()
  }

  /** Ends an open call: `used` of each dimension, by default what was estimated. */
  end(id: number, used: Charge, succeeded: boolean): void {
    const call = this.calls.get(id)!
    call.state = "gone"
    // A probe that fails has had its turn.
    if (succeeded || !this.probesOverload()) this.correct(call, used)
    this.settle(call, used)
    if (this.probe?.open.delete(id) && succeeded && call.turn > this.probe.since) {
      if (this.probe.because === "limit") {
        this.probe.allowed *= 2
        if (this.probe.allowed <= 4) this.probe.since = this.admissions
      } else this.probe.allowed++
      this.probe.heardAt = this.now
      if (this.probe.allowed >= Math.min(1024, this.concurrency)) this.probe = undefined
    }
    this.settleQueue()
  }

  /** The call was rejected; it has been given back already. What its response said is read again without it. */
  cooldown(millis: number, reason: "rateLimit" | "ramp", id: number): void {
    const rejected = this.calls.get(id)!
    if (rejected.signal !== undefined) this.hear(rejected.signal, undefined)
    this.cool(millis, reason, rejected)
    this.probe = this.probing("limit", this.admissions, this.admissions, 1, [])
    this.settleQueue()
  }

  /** A response: `answered` is the call whose response it was, if that is known. */
  observe(signal: Signal, answered: number | undefined): void {
    const call = answered === undefined ? undefined : this.calls.get(answered)!
    if (call !== undefined) call.signal = signal
    this.hear(signal, call)
    this.known()
    this.settleQueue()
  }

  /** With limits known the first call need not go alone any more; with none it does. */
  private known(): void {
    if (this.dims.size > 0) {
      if (this.probe?.because === "unknown") this.probe = undefined
    } else if (this.wereKnown) {
      this.probe ??= this.probing("unknown", this.admissions, this.admissions, 1, [])
    }
    this.wereKnown = this.dims.size > 0
  }

  /** The provider has too much load: half as many calls, and a rest after each probe that fails alone. */
  overload(millis: number, failed: number): void {
    const { admissions, now } = this
    const call = this.calls.get(failed)!
    this.until = Math.max(this.until, now + millis)
    const open = [...this.calls.values()].filter((other) => other.state === "open").map(({ id }) => id)
    if (this.probe === undefined) {
      const allowed = Math.max(1, Math.floor(Math.min(this.concurrency, open.length + 1) / 2))
      this.probe = this.probing("overload", admissions, -Infinity, allowed, open)
    } else if (call.turn > this.probe.since && now >= this.probe.restsUntil) {
      if (this.probesOverload()) {
        this.probe.since = admissions
        this.probe.misses++
        this.probe.restsUntil = now + [5_000, 10_000, 20_000][Math.min(this.probe.misses, 3) - 1]!
      } else {
        const half = Math.max(1, Math.floor(Math.min(this.allowed, open.length + 1) / 2))
        const allowed = Math.min(this.probe.allowed, half)
        this.probe = this.probing("overload", admissions, this.probe.counts, allowed, this.probe.open)
      }
    }
    this.settleQueue()
  }

  /** When a cooldown or a rest is over. */
  get pausedUntil(): number {
    return Math.max(this.until, this.probe?.restsUntil ?? -Infinity)
  }

  private probesOverload(): boolean {
    return this.probe?.because === "overload" && this.probe.allowed === 1
  }

  /** What was given before goes; what responses taught of other dimensions stays. */
  resize(rules: Rules | undefined, concurrency: number | undefined): void {
    if (rules !== undefined) {
      for (const dimension of this.dims.keys()) {
        if (this.given[dimension] !== undefined && rules[dimension] === undefined) this.dims.delete(dimension)
      }
      this.given = rules
      this.setRules(rules)
      this.known()
    }
    this.concurrency = concurrency ?? this.concurrency
    this.settleQueue()
  }

  /** Lets time pass, millisecond by millisecond as far as anybody can tell. */
  pass(millis: number): void {
    const end = this.now + millis
    for (;;) {
      const head = this.head()
      if (head === undefined || !this.headGoesBy(head, end)) break
      // The first moment at which the head goes: found by halving, because waiting longer never makes it harder.
      let early = this.now
      let late = end
      while (late - early > 1) {
        const middle = Math.floor((early + late) / 2)
        if (this.headGoesBy(head, middle)) late = middle
        else early = middle
      }
      this.moveTo(late)
      this.settleQueue()
    }
    this.moveTo(end)
  }

  // Inside

  private probing(because: Probe["because"], since: number, counts: number, allowed: number, open: Iterable<number>) {
    const rest = { heardAt: this.now, misses: 0, restsUntil: -Infinity }
    return { because, since, counts, allowed, open: new Set(open), ...rest }
  }

  private keyOf(call: { priority: number; agent: string }): string {
    return `${call.priority}/${call.agent}`
  }

  private backlogged(priority: number): Array<Flow & { key: string; weight: number }> {
    const keys = new Map<string, number>()
    for (const call of this.waiting) if (call.priority === priority) keys.set(this.keyOf(call), call.weight)
    return [...keys].map(([key, weight]) => ({ key, weight, ...this.flows.get(key)! }))
  }

  private head(): Call | undefined {
    if (this.waiting.length === 0) return undefined
    const priority = Math.max(...this.waiting.map((call) => call.priority))
    const [next] = this.backlogged(priority).sort((a, b) => a.start - b.start || a.turn - b.turn)
    return this.waiting.find((call) => this.keyOf(call) === next!.key)
  }

  /** A probe that says nothing for a minute lets one more out. */
  private hasPlace(): boolean {
    const { now, probe } = this
    return (
      this.inFlight < this.concurrency &&
      (probe === undefined ||
        (now >= probe.restsUntil && (probe.open.size < probe.allowed || now >= probe.heardAt + 60_000)))
    )
  }

  private mayGo(call: Call): boolean {
    return this.hasPlace() && this.until <= this.now && !this.tooLarge(call) && this.fitsAll(call.charge)
  }

  private headGoesBy(head: Call, time: number): boolean {
    return this.at(time, () => this.hasPlace() && (this.tooLarge(head) || this.overQuota(head) || this.mayGo(head)))
  }

  /** What its service costs, by the limits as they are now. */
  private price(call: Call): void {
    call.cost = Math.max(1e-4, ...[...this.dims].map(([dimension, { rule }]) => call.charge[dimension]! / rule.most))
  }

  private settleQueue(): void {
    for (let head = this.head(); head !== undefined; head = this.head()) {
      if (!this.hasPlace()) return
      if (this.tooLarge(head) || this.overQuota(head)) {
        this.refuse(head, this.tooLarge(head) ? "EstimateTooLarge" : "QuotaExhausted")
        continue
      }
      if (!this.mayGo(head)) return
      this.price(head)
      const flows = this.backlogged(head.priority)
      const weight = flows.reduce((sum, flow) => sum + flow.weight, 0)
      const flow = this.flows.get(this.keyOf(head))!
      const refunded = this.refunded.get(head.priority) ?? 0
      const virtual = Math.max(this.virtual.get(head.priority) ?? 0, flow.start + refunded)
      head.moved = head.cost / Math.max(weight, head.weight)
      head.era = this.era
      this.virtual.set(head.priority, virtual + head.moved)
      flow.start = flow.start + head.cost / head.weight + flow.owed
      flow.owed = 0
      flow.turn = this.turns++
      this.admit(head)
    }
  }

  /**
   * A service turns out to have cost something else than what was asked for. Who does not wait, or waits behind the head,
   * has his tag corrected, but not to before the head's; what is left of it counts at his next service, and of what he is
   * owed no more than this one service.
   */
  private correct(call: Call, used: Charge): void {
    const dims = [...this.dims].filter(([dimension]) => call.held[dimension] !== undefined)
    const share = (charge: Charge) =>
      Math.max(0, ...dims.map(([dimension, { rule }]) => (charge[dimension] ?? 0) / rule.most))
    const asked = share(call.held)
    const came = share({ ...call.held, ...used })
    if (call.moved === undefined || call.era !== this.era || came === asked) return
    // What costs next to nothing takes its turn all the same; what is given back whole does not.
    const part = came === 0 ? 0 : Math.max(1e-4, came) / Math.max(1e-4, asked)
    this.refunded.set(call.priority, (this.refunded.get(call.priority) ?? 0) + (1 - part) * call.moved)
    const flow = this.flows.get(this.keyOf(call))!
    const step = call.cost / call.weight
    const owed = flow.owed + (part - 1) * step
    const tag = flow.start + owed
    const waiting = this.backlogged(call.priority).sort((a, b) => a.start - b.start || a.turn - b.turn)
    const isHead = waiting[0]?.key === this.keyOf(call)
    const waits = waiting.some(({ key }) => key === this.keyOf(call))
    const noEarlier = waits ? waiting[0]!.start : -Infinity
    const start = isHead ? flow.start : Math.max(noEarlier, tag)
    flow.owed = Math.max(tag - start, -step)
    if (start === flow.start) return
    flow.start = start
    flow.turn = this.turns++
  }

  private refuse(call: Call, why: "EstimateTooLarge" | "QuotaExhausted"): void {
    call.state = "gone"
    this.waiting = this.waiting.filter((other) => other !== call)
    this.refused.push({ id: call.id, why })
  }

  private admit(call: Call): void {
    this.waiting = this.waiting.filter((other) => other !== call)
    call.state = "open"
    this.take(call)
    call.takenAt = this.now
    if (this.probe !== undefined) {
      this.probe.open.add(call.id)
      this.probe.heardAt = this.now
    }
    this.admitted.push({ id: call.id, at: this.now })
  }
}
