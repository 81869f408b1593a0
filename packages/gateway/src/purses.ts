/** The purses that a call pays from: one for each cap that applies. */
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { createHmac, randomBytes } from "node:crypto"
import * as Spending from "floodgate/Spending"
import { Bounds, isReached, Json, Lru } from "floodgate/internal"
import type { capChange } from "./endpointSchemas.ts"
import { conditionsOf, digestOf, idOf, keyNameOf, labelOf, suffixOf } from "./names.ts"
import type { CapStatus } from "./page/status.ts"
import type { CapPolicy } from "./rateLimits.ts"
import type { Rule } from "./settings/values.ts"

/** A change of a cap by an operator. */
export type CapChange = typeof capChange.Type

/** A key by its hash, which does not reveal it. */
export interface CallerKey {
  readonly name: string
  readonly hash: string
}

/** How many idle purses with a cap are kept. Of further ones only the amounts are kept. */
const maxOpen = 1_000
/**
 * The maximum number of agents and keys that have spent part of a cap. Callers can invent agents, and all of them are written to a
 * file every 30 seconds. At the maximum new ones are refused, because one that is forgotten would have its whole cap again.
 */
const maxSpent = Bounds.bounds.spenders.max
/** Enough to tell the agents and keys of a gateway apart. */
const partitionBytes = 8
/** Longer names of agents are replaced by their hash. */
const longestName = 64

const shortened = (name: string): string => (name.length <= longestName ? name : `sha256 ${digestOf(name)}`)

/** Whether all callers of a rule share a cap, rather than each agent or key having its own. */
const isShared = (id: string): boolean => id.startsWith('["rule"')

/** Whether a rule has no conditions. */
const isGeneral = ({ agent, headers, key, model }: Rule): boolean =>
  [agent, headers, key, model].every((condition) => condition === undefined)

interface Capped {
  readonly id: string
  /** The name of its policy in the header fields of answers. It names no agent and no key. */
  readonly policy: string
  readonly purse: Spending.Purse
  readonly close: () => void
  cap: Spending.Cap
}

/** A cap that all callers of a rule share, as the metrics show it. */
export interface SharedCap {
  readonly name: string
  /** The period of the cap in words. */
  readonly per: string
  readonly dollars: number
  /** Returns what is left of it, in dollars. */
  readonly left: () => number
  /** Returns whether calls are refused because it is spent. */
  readonly isReached: () => boolean
  /** Returns how many calls wait until running calls give back what they have reserved of it. */
  readonly waiting: () => number
}

const perOf = (per: Spending.Cap["per"]): string => {
  if (per === undefined) return "ever"
  return typeof per === "string" ? per : Duration.format(Duration.fromInputUnsafe(per))
}

/** The names of the caps of an agent and of a key. */
const nameOf = {
  agent: (agent: string, rule: Rule): string => `agent ${agent}${suffixOf(rule)}`,
  key: (key: string, rule: Rule): string => `the key ${key}${suffixOf(rule)}`
}

/** Identifies a cap. A change of its period makes another cap; a change of its amount does not. */
const idBy = (kind: string, identity: string, subject: string, { per }: Spending.Cap): string =>
  JSON.stringify([kind, identity, subject, per ?? null])

/** The smallest cap. It admits no call that costs anything. */
const nothing: Spending.Cap = { dollars: 1e-9 }

/** The purses of a gateway's callers. It is mutable. */
export class CallerPurses {
  private readonly capped = new Lru.Registry<string, Capped>(
    ({ id, purse }) => !isShared(id) && this.isIdle(purse),
    (gone) => this.setAside(gone)
  )
  /** The cap of each purse, also of one that is not kept any more. */
  private readonly cappedOf = new WeakMap<Spending.Purse, Capped>()
  /** Nobody outside can guess by which key the identities of agents and keys are hashed. */
  private readonly secret = randomBytes(32)
  /** How many running requests may pay from a purse. */
  private readonly users = new Map<Spending.Purse, number>()
  /** Refuses the agents and keys for which there is no room. */
  private readonly full = Spending.make(`agents and keys beyond the first ${maxSpent}`, nothing)
  private readonly earlier: Map<string, Spending.Kept>
  /** Runs an effect of a purse at once, by the clock of the gateway. */
  private readonly read: <A>(effect: Effect.Effect<A>) => A
  private readonly context: Context.Context<never>
  /** The scope of the gateway, in which purses are open. */
  private readonly scope: Scope.Scope
  /** The names of the caps of the current rules, which are shown even before they are used. */
  private shared: ReadonlySet<string> = new Set()
  /** The rules that apply to every caller. */
  private general: ReadonlyArray<Rule> = []
  private rules: ReadonlyArray<Rule> = []
  /** Whether the gateway has keys of its own, whose names may be shown. */
  private hasKeys = false

  constructor(earlier: Readonly<Record<string, Spending.Kept>>, context: Context.Context<never>, scope: Scope.Scope) {
    this.earlier = new Map(Object.entries(earlier))
    this.context = context
    this.scope = scope
    this.read = Effect.runSyncWith(context)
  }

  /** The purses of a caller that these rules apply to. */
  of(
    matching: ReadonlyArray<Rule>,
    agent: string,
    keysOf: () => ReadonlyArray<CallerKey>
  ): ReadonlyArray<Spending.Purse> {
    const purses: Array<Spending.Purse> = []
    for (const rule of matching) {
      const shared = this.ofRule(rule)
      if (shared !== undefined) purses.push(shared)
    }
    const byAgent = matching.find(({ capPerAgent }) => capPerAgent !== undefined)
    if (byAgent !== undefined) {
      purses.push(this.cap(byAgent.capPerAgent!, nameOf.agent(agent, byAgent), "agent", byAgent, shortened(agent)))
    }
    const byKey = matching.find(({ capPerKey }) => capPerKey !== undefined)
    if (byKey !== undefined) {
      for (const { hash, name } of keysOf()) {
        purses.push(this.cap(byKey.capPerKey!, nameOf.key(name, byKey), "key", byKey, hash))
      }
    }
    return purses
  }

  /** Keeps purses while a request may pay from them, even between two attempts, until the returned function is called. */
  use(purses: ReadonlyArray<Spending.Purse>): () => void {
    const { users } = this
    for (const purse of purses) users.set(purse, (users.get(purse) ?? 0) + 1)
    return () => {
      for (const purse of purses) {
        const left = users.get(purse)! - 1
        if (left > 0) users.set(purse, left)
        else users.delete(purse)
      }
    }
  }

  /** Shows the caps of these rules from now on, and returns those caps. */
  show(rules: ReadonlyArray<Rule>, hasKeys = false): ReadonlyArray<SharedCap> {
    this.hasKeys = hasKeys
    const caps = rules.flatMap((rule) => {
      const purse = this.ofRule(rule)
      if (purse === undefined) return []
      const { cap } = rule
      const status = () => this.read(purse.status)
      return [
        {
          name: purse.name,
          per: perOf(cap?.per),
          dollars: cap?.dollars ?? 0,
          left: () => status().left ?? 0,
          isReached: () => status().isReached,
          waiting: () => status().queued
        }
      ]
    })
    this.shared = new Set(caps.map(({ name }) => name))
    this.general = rules.filter(isGeneral)
    this.rules = rules
    return caps
  }

  /** The purses from which every call pays. */
  get ofEverybody(): ReadonlyArray<Spending.Purse> {
    return this.general.flatMap((rule) => this.ofRule(rule) ?? [])
  }

  /** Reports the caps whose period has ended since they were reached, although nobody calls. */
  review(): void {
    for (const { purse } of this.capped.values()) if (isReached(purse)) this.read(purse.status)
  }

  private isIdle(purse: Spending.Purse): boolean {
    return !this.users.has(purse) && this.read(purse.status).held === 0
  }

  /** The purse that all callers of a rule share. */
  private ofRule(rule: Rule): Spending.Purse | undefined {
    return rule.cap && this.cap(rule.cap, labelOf(rule, this.hasKeys), "rule", rule, "")
  }

  private cap(cap: Spending.Cap, name: string, kind: string, rule: Rule, subject: string): Spending.Purse {
    const id = idBy(kind, idOf(rule), subject, cap)
    if (rule.name !== undefined && !this.capped.has(id)) this.adopt(idBy(kind, conditionsOf(rule), subject, cap), id)
    const known = this.capped.use(id)
    if (known !== undefined) {
      if (known.cap !== cap) this.read(known.purse.resize(cap))
      known.cap = cap
      return known.purse
    }
    this.capped.shed(maxOpen - 1)
    if (!this.hasRoomFor(id)) return this.full
    const policy = kind === "rule" ? name : `per ${kind}${suffixOf(rule)}`
    const made = this.open(id, name, policy, cap)
    this.earlier.delete(id)
    this.put(made)
    return made.purse
  }

  /** Opens a purse in the store that gateways share, or one of this gateway. */
  private open(id: string, name: string, policy: string, cap: Spending.Cap): Capped {
    const inner = this.read(Scope.fork(this.scope))
    const opened = Spending.open(name, cap, { kept: this.earlier.get(id), key: id })
    const purse = this.read(Effect.provideService(opened, Scope.Scope, inner))
    const close = () => void Effect.runForkWith(this.context)(Scope.close(inner, Exit.void))
    return { id, policy, purse, cap, close }
  }

  private put(capped: Capped): void {
    this.capped.set(capped.id, capped)
    this.cappedOf.set(capped.purse, capped)
  }

  /** The caps of these purses as policies; those of jobs are no caps of a caller. */
  policies(purses: ReadonlyArray<Spending.Purse>): ReadonlyArray<CapPolicy> {
    return purses.flatMap((purse) => {
      const capped = this.cappedOf.get(purse)
      if (capped === undefined && purse !== this.full) return []
      const status = this.read(purse.status)
      if (capped === undefined) return [{ name: purse.name, per: undefined, partition: undefined, ...status }]
      const { cap, id, policy } = capped
      return [{ name: policy, per: cap.per, partition: isShared(id) ? undefined : this.partitionOf(id), ...status }]
    })
  }

  private partitionOf(id: string): Uint8Array {
    return createHmac("sha256", this.secret).update(id).digest().subarray(0, partitionBytes)
  }

  /** Changes a cap for an operator; undefined if no cap or more than one has this name. */
  change({ cap: wanted, dollars, reset }: CapChange): CapStatus | undefined {
    const all = [...this.capped.values()]
    const named = all.filter(({ purse }) => purse.name === wanted)
    const found = this.capped.get(wanted) ?? (named.length === 1 ? named[0] : this.reopened(wanted))
    if (found === undefined) return undefined
    const { cap, purse } = found
    if (dollars !== undefined) this.read(purse.resize({ ...cap, dollars }))
    if (reset === true) this.read(purse.reset)
    return this.statusOf(found)
  }

  /** Opens the cap of an agent or a key by its id. It may have called through other gateways alone, or long ago. */
  private reopened(id: string): Capped | undefined {
    const [kind, , subject] = Json.listOf(Json.parseJson(id))
    if (typeof subject !== "string" || (kind !== "agent" && kind !== "key")) return undefined
    for (const rule of this.rules) {
      const cap = kind === "agent" ? rule.capPerAgent : rule.capPerKey
      if (cap === undefined || idBy(kind, idOf(rule), subject, cap) !== id) continue
      const name = kind === "agent" ? subject : keyNameOf(subject)
      this.cap(cap, nameOf[kind](name, rule), kind, rule, subject)
      return this.capped.get(id)
    }
    return undefined
  }

  private statusOf({ cap, id, purse }: Capped): CapStatus {
    const status = this.read(purse.status)
    return { id, name: purse.name, dollars: status.limit ?? cap.dollars, ...status }
  }

  /**
   * A rule that has been given a name keeps what was spent before. Its running calls keep the earlier name of the cap. A cap in a
   * store begins anew, because other gateways may already know it by the name.
   */
  private adopt(former: string, id: string): void {
    const inUse = this.capped.get(former)
    if (inUse?.purse.isShared === true) return
    const kept = this.earlier.get(former)
    if (inUse !== undefined) this.put({ ...inUse, id })
    if (kept !== undefined && !this.earlier.has(id)) this.earlier.set(id, kept)
    this.capped.delete(former)
    this.earlier.delete(former)
  }

  /** Remembers the amounts of an idle cap, unless nothing was spent, as with keys that the provider does not know. */
  private setAside({ close, id, purse }: Capped): void {
    close()
    if (!purse.isShared && this.read(purse.status).spent > 0) this.earlier.set(id, this.read(purse.kept))
  }

  private hasRoomFor(id: string): boolean {
    const { capped, earlier } = this
    const hasRoom = () => isShared(id) || earlier.has(id) || capped.size + earlier.size < maxSpent
    if (hasRoom()) return true
    this.capped.shed(maxOpen - 1, capped.size)
    const now = this.read(Clock.currentTimeMillis)
    for (const [each, kept] of earlier) if (isOver(kept, now)) earlier.delete(each)
    return hasRoom()
  }

  /** The caps, with the most used one first. */
  caps(max: number): ReadonlyArray<CapStatus> {
    return [...this.capped.values()]
      .map((capped) => this.statusOf(capped))
      .filter(({ held, name, spent }) => spent + held > 0 || this.shared.has(name))
      .sort((one, other) => usedPart(other) - usedPart(one))
      .slice(0, max)
  }

  /** The amounts that the gateway needs after a restart. A store keeps those of the purses in it. */
  get kept(): Readonly<Record<string, Spending.Kept>> {
    const now = this.read(Clock.currentTimeMillis)
    const inUse = [...this.capped].flatMap(([id, { purse }]) =>
      !purse.isShared && this.read(purse.status).spent > 0 ? [[id, this.read(purse.kept)] as const] : []
    )
    const earlier = [...this.earlier].filter(([, kept]) => !isOver(kept, now))
    return Object.fromEntries([...earlier, ...inUse])
  }
}

/** Whether no amount counts any more. */
const isOver = ({ cells }: Spending.Kept, now: number): boolean =>
  cells.every(({ ends }) => ends !== null && ends <= now)

const usedPart = ({ dollars, held, spent }: CapStatus): number => (spent + held) / dollars
