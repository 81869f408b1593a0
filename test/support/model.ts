/**
 * What a budget must do, written the slow and obvious way: lists that are scanned, levels that are counted step by step,
 * and moments that are searched for. Nothing of the library's arithmetic is used.
 */

import * as Reading from "./modelReading.ts"

export type Dimension = "requests" | "inputTokens" | "outputTokens" | "tokens"
/** In the order in which responses are read. */
export const order: ReadonlyArray<Dimension> = ["requests", "inputTokens", "outputTokens", "tokens"]
export type Charge = { [D in Dimension]?: number }

/** A limit as a bucket: refill per millisecond, and what one minute may hold where that is counted. */
export interface Rule {
  readonly capacity: number
  readonly rate: number
  readonly most: number
  readonly perMinute?: number
  readonly quota?: boolean
}
export type Rules = { readonly [D in Dimension]?: Rule }

interface Spent {
  readonly at: number
  amount: number
}

interface Dim {
  rule: Rule
  level: number
  reserve: number
  spent: Array<Spent>
}

/** What a response said of the limits, and when by the provider's clock. */
export interface Signal {
  readonly figures: Reading.Figures
  readonly date: number | undefined
}

export interface Call {
  readonly id: number
  readonly agent: string
  readonly priority: number
  readonly weight: number
  readonly charge: Charge
  cost: number
  state: "waiting" | "open" | "gone"
  /** What is held of it while it is open: its charge, as far as limits were known when it was admitted. */
  held: Charge
  /** What was left of each dimension then; every correction since is made here, too. */
  left: Map<Dimension, number>
  /** What its response said. */
  signal: Signal | undefined
  /** The number of its admission. */
  turn: number
  takenAt: number
  spent: Map<Dimension, Spent>
  /** By how much its service moved virtual time on; undefined where it had not to queue. */
  moved: number | undefined
  /** How often history had been forgotten by then. */
  era: number
}

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

const stepMillis = 10_000
const windowMillis = 60_000
/** A window is remembered second by second: a second's admissions leave it together. */
const cellMillis = 1_000

export class Model {
  now = 0
  until = 0
  scale = 1
  growth = 0
  private callsInStep = 0
  private ramped = false
  stepAt = 0
  /** What somebody else spent in this step, as a part of its refill. */
  private drift = 0
  concurrency: number
  readonly admitted: Array<{ readonly id: number; readonly at: number }> = []
  readonly refused: Array<{ readonly id: number; readonly why: "EstimateTooLarge" | "QuotaExhausted" }> = []
  readonly calls = new Map<number, Call>()
  waiting: Array<Call> = []
  readonly dims = new Map<Dimension, Dim>()
  /** What was configured: responses only cut it down. */
  private given: Rules
  private heardAt = 0
  /** The provider's date of the latest response that was heeded. */
  private latestDate = -Infinity
  private readonly doubts: Reading.Doubts = { taken: 0, now: 0 }
  /** What responses and rejections took from each level, and gave, in sum; nothing where none spoke of it. */
  private readonly corrected = new Map<Dimension, number>()
  /** The latest call that the provider had counted when it made us move the level. */
  private readonly countedUpTo = new Map<Dimension, number>()
  private flows = new Map<string, Flow>()
  private virtual = new Map<number, number>()
  private refunded = new Map<number, number>()
  private era = 0
  private turns = 0
  private admissions = 0
  private probe: Probe | undefined
  private readonly headroom: number

  constructor(rules: Rules, concurrency: number, headroom: number) {
    this.concurrency = concurrency
    this.headroom = headroom
    this.given = rules
    this.setRules(rules)
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
    const asGiven = Object.entries(this.given) as Array<[Dimension, Rule]>
    const fitsGiven = asGiven.every(([dimension, rule]) => (call.charge[dimension] ?? 0) <= rule.most)
    if (this.tooLarge(full) && fitsGiven && this.now - this.heardAt >= 3_600_000) {
      this.heardAt = this.now
      this.resize(this.given, undefined)
    }
    full.cost = Math.max(1e-4, ...[...this.dims].map(([dimension, { rule }]) => call.charge[dimension]! / rule.most))
    if (!(this.waiting.length === 0 && this.mayGo(full))) {
      if (this.tooLarge(full)) return this.refuse(full, "EstimateTooLarge")
      if (this.overQuota(full)) return this.refuse(full, "QuotaExhausted")
    }
    if (this.waiting.length === 0 && this.concurrency === Infinity && this.mayGo(full)) {
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
    for (const [dimension, dim] of this.dims) {
      const estimate = call.held[dimension]
      if (estimate === undefined) continue
      const more = (used[dimension] ?? estimate) - estimate
      if (more > 0) {
        dim.level -= more
        dim.spent.push({ at: this.now, amount: more })
      } else {
        // What the provider had counted already when it spoke is not given back, but it leaves the window.
        const counted = dim.rule.quota !== true && call.turn <= (this.countedUpTo.get(dimension) ?? -1)
        if (!counted) dim.level = Math.max(dim.level, Math.min(dim.rule.capacity, dim.level - more))
        const spent = call.spent.get(dimension)
        if (spent !== undefined) spent.amount += more
      }
    }
    if (this.probe?.open.delete(id) && succeeded && call.turn > this.probe.since) {
      this.probe.allowed += this.probe.because === "limit" ? this.probe.allowed : 1
      this.probe.heardAt = this.now
      if (this.probe.allowed >= Math.min(1024, this.concurrency)) this.probe = undefined
    }
    this.settleQueue()
  }

  /** The call was rejected; it has been given back already. What its response said is read again without it. */
  cooldown(millis: number, reason: "rateLimit" | "ramp", id: number): void {
    const rejected = this.calls.get(id)!
    if (rejected.signal !== undefined) this.hear(rejected.signal, undefined)
    const wasCooling = this.until > this.now
    this.until = Math.max(this.until, this.now + millis)
    if (!wasCooling) {
      if (reason === "ramp") {
        this.slow(0.9, 1 / 60)
      } else if (this.fitsAll(rejected.held)) {
        for (const [dimension, dim] of this.dims) {
          const asked = rejected.held[dimension] ?? 0
          if (dim.rule.quota === true || asked === 0) continue
          const need = Math.min(asked + dim.reserve, dim.rule.capacity)
          this.correctLevel(dimension, Math.min(dim.level, need - dim.rule.rate * this.scale * 0.7 * millis))
        }
        this.slow(0.7, 0.05)
      } else if (this.isChanging()) {
        this.slow(0.8, 0.02)
      }
    }
    this.probe = this.probing("limit", this.admissions, this.admissions, 1, [])
    this.settleQueue()
  }

  /** A response: `answered` is the call whose response it was, if that is known. */
  observe(signal: Signal, answered: number | undefined): void {
    const call = answered === undefined ? undefined : this.calls.get(answered)!
    if (call !== undefined) call.signal = signal
    this.hear(signal, call)
    this.settleQueue()
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

  resize(rules: Rules | undefined, concurrency: number | undefined): void {
    if (rules !== undefined) {
      this.given = rules
      for (const dimension of this.dims.keys()) if (rules[dimension] === undefined) this.dims.delete(dimension)
      this.setRules(rules)
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

  private setRules(rules: Rules): void {
    for (const [dimension, rule] of Object.entries(rules) as Array<[Dimension, Rule]>) {
      const dim = this.dims.get(dimension)
      if (dim === undefined) {
        const reserve = rule.quota === true ? 0 : rule.capacity * this.headroom
        this.dims.set(dimension, { rule, level: rule.capacity, reserve, spent: [] })
        continue
      }
      dim.reserve = (dim.reserve / dim.rule.capacity) * rule.capacity
      dim.rule = rule
      dim.level = Math.min(dim.level, rule.capacity)
    }
    if (this.dims.size > 0 && this.probe?.because === "unknown") this.probe = undefined
  }

  /** Moves the local view toward what a response says. */
  private hear({ date, figures }: Signal, answered: Call | undefined): void {
    this.heardAt = this.now
    // Older than the latest by seconds: it was overtaken. By more than a minute: the latest was wrong.
    if (date !== undefined && date < this.latestDate && date > this.latestDate - 60_000) return
    this.latestDate = date ?? this.latestDate
    const open = [...this.calls.values()].filter((call) => call.state === "open")
    const isIdle =
      answered !== undefined && answered.turn === this.admissions && open.every((call) => call === answered)
    let theirs = 0
    for (const dimension of order) {
      const figure = figures[dimension]
      if (figure === undefined) continue
      this.learn(dimension, figure)
      const dim = this.dims.get(dimension)
      if (dim === undefined || dim.rule.quota === true || figure.remaining === undefined) continue
      const isOutput = dimension === "outputTokens"
      const outputOf = (calls: ReadonlyArray<Call>) =>
        isOutput ? calls.reduce((sum, call) => sum + (call.held.outputTokens ?? 0), 0) : 0
      const own = outputOf(open.filter((call) => call === answered))
      const others = outputOf(open.filter((call) => call !== answered))
      const { capacity } = dim.rule
      const leftThen = isOutput ? undefined : answered?.left.get(dimension)
      const left = leftThen === undefined ? undefined : Math.min(capacity, leftThen)
      const view = { capacity, level: dim.level, left, others }
      const { less, more, sure } = Reading.read(figure.remaining, figure.roundedTo ?? 1, view, this.doubts)
      const counted = () => {
        const upTo = answered?.turn ?? this.admissions
        if (!isOutput) this.countedUpTo.set(dimension, Math.max(upTo, this.countedUpTo.get(dimension) ?? -1))
      }
      const perStep = dim.rule.rate * stepMillis
      const before = this.corrected.get(dimension)
      let level = dim.level
      if (less > 0) {
        level = dim.level - less - own
        dim.reserve = Math.min(capacity / 4, 2 * Math.max(dim.reserve, capacity * this.headroom))
        // The first figure tells where we start, later ones what somebody else spends; output may be our own.
        const spent = less - others - own
        if (before !== undefined && spent > 0) theirs = Math.max(theirs, spent / perStep)
        counted()
      } else {
        dim.reserve = Math.max(dim.reserve / 2, (capacity * this.headroom) / 16)
        if (isIdle && this.scale >= 1) {
          // Everything that was sent is counted: it may be raised.
          level = Math.min(capacity, Math.max(dim.level, sure - own))
          if (level > dim.level) counted()
        } else if (leftThen !== undefined && more > 0 && this.scale >= 1) {
          // What was taken from the level before is given back, no more, and not while it was just told no.
          const returned = Math.min(more, -(before ?? 0))
          if (returned > 0) {
            level = dim.level + returned
            if (theirs <= 0) theirs = Math.min(theirs, -returned / perStep)
          }
        }
      }
      this.correctLevel(dimension, level)
    }
    if (theirs === 0) return
    if (!this.isChanging()) this.stepAt = this.now
    // What is no more than the last bits of a sum is nobody's.
    this.drift = this.drift + theirs < 1e-9 ? 0 : this.drift + theirs
  }

  private learn(dimension: Dimension, figure: Reading.Figure): void {
    const given = this.given[dimension]
    if (figure.limit === undefined || given?.quota === true) return
    const before = this.dims.get(dimension)?.rule.capacity ?? 0
    const rule = given === undefined ? Reading.learned(dimension, figure, before) : Reading.cutDown(given, figure.limit)
    this.setRules({ [dimension]: rule })
  }

  /** A correction is no spending: it moves what was left when each call was taken, too. */
  private correctLevel(dimension: Dimension, level: number): void {
    const dim = this.dims.get(dimension)!
    const by = level - dim.level
    this.corrected.set(dimension, (this.corrected.get(dimension) ?? 0) + by)
    for (const { left } of this.calls.values()) if (left.has(dimension)) left.set(dimension, left.get(dimension)! + by)
    dim.level = Math.min(level, dim.rule.capacity)
  }

  private isChanging(): boolean {
    return this.scale < 1 || this.drift > 0
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

  private tooLarge(call: Call): boolean {
    return [...this.dims].some(([dimension, { rule }]) => (call.charge[dimension] ?? 0) > rule.most)
  }

  private overQuota(call: Call): boolean {
    return [...this.dims].some(
      ([dimension, { level, rule }]) => rule.quota === true && (call.charge[dimension] ?? 0) > level
    )
  }

  private mayGo(call: Call): boolean {
    return this.hasPlace() && this.until <= this.now && !this.tooLarge(call) && this.fitsAll(call.charge)
  }

  private fitsAll(charge: Charge): boolean {
    for (const [dimension, { level, reserve, rule, spent }] of this.dims) {
      const amount = charge[dimension] ?? 0
      if (amount === 0) continue
      const slack = rule.capacity * 1e-9
      const need = rule.quota === true ? amount : Math.min(amount + reserve, rule.capacity)
      if (level < need - slack) return false
      if (rule.perMinute === undefined) continue
      let sum = amount
      for (const entry of spent) if (this.counts(entry)) sum += entry.amount
      if (sum > rule.perMinute * (1 + 1e-9)) return false
    }
    return true
  }

  private counts(entry: Spent): boolean {
    return this.now < (Math.floor(entry.at / cellMillis) + 1) * cellMillis + windowMillis
  }

  private headGoesBy(head: Call, time: number): boolean {
    const saved = {
      now: this.now,
      scale: this.scale,
      growth: this.growth,
      drift: this.drift,
      stepAt: this.stepAt,
      callsInStep: this.callsInStep,
      ramped: this.ramped,
      levels: [...this.dims.values()].map((dim) => dim.level)
    }
    this.moveTo(time)
    const goes = this.hasPlace() && (this.tooLarge(head) || this.overQuota(head) || this.mayGo(head))
    this.now = saved.now
    this.scale = saved.scale
    this.growth = saved.growth
    this.drift = saved.drift
    this.stepAt = saved.stepAt
    this.callsInStep = saved.callsInStep
    this.ramped = saved.ramped
    let i = 0
    for (const dim of this.dims.values()) dim.level = saved.levels[i++]!
    return goes
  }

  private moveTo(time: number): void {
    while (this.isChanging() && this.stepAt + stepMillis <= time) {
      this.refillTo(this.stepAt + stepMillis)
      this.grow(this.stepAt + stepMillis)
    }
    this.refillTo(time)
  }

  private refillTo(time: number): void {
    for (const dim of this.dims.values()) {
      dim.level = Math.min(dim.rule.capacity, dim.level + dim.rule.rate * this.scale * (time - this.now))
    }
    this.now = time
  }

  private slow(factor: number, growth: number): void {
    if (this.scale === 1) {
      this.growth = growth
      this.callsInStep = 0
      this.ramped = false
    }
    this.growth = Math.min(growth, this.growth)
    if (growth === 1 / 60) this.ramped = true
    this.scale = Math.max(0.05, this.scale * factor)
    this.stepAt = this.now
    this.drift = 0
  }

  /** The end of a step: after ten seconds, or sixteen calls. */
  private grow(time: number): void {
    this.stepAt = time
    this.callsInStep = 0
    if (this.drift > 0) {
      // What somebody else spent is left to him; a step takes half at most.
      this.scale = Math.max(0.05, this.scale - Math.min(this.drift, this.scale / 2))
      this.growth = 0.02
      this.drift = 0
    } else {
      this.scale = Math.min(1, this.scale + this.growth)
    }
  }

  private settleQueue(): void {
    for (let head = this.head(); head !== undefined; head = this.head()) {
      if (!this.hasPlace()) return
      if (this.tooLarge(head) || this.overQuota(head)) {
        this.refuse(head, this.tooLarge(head) ? "EstimateTooLarge" : "QuotaExhausted")
        continue
      }
      if (!this.mayGo(head)) return
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
    if (call.moved === undefined || call.era !== this.era || asked === 0) return
    const part = share({ ...call.held, ...used }) / asked
    if (part === 1) return
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
    call.turn = ++this.admissions
    call.takenAt = this.now
    if (this.probe !== undefined) {
      this.probe.open.add(call.id)
      this.probe.heardAt = this.now
    }
    for (const [dimension, dim] of this.dims) {
      const amount = call.charge[dimension] ?? 0
      dim.level -= amount
      const spent = { at: this.now, amount }
      call.held[dimension] = amount
      call.left.set(dimension, dim.level)
      call.spent.set(dimension, spent)
      dim.spent.push(spent)
    }
    if (this.scale < 1 && !this.ramped && ++this.callsInStep >= 16 && this.drift <= 0) this.grow(this.now)
    this.admitted.push({ id: call.id, at: this.now })
  }
}
