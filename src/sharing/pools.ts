/** The states of pools, as a port keeps them. */
import * as Pacer from "../pacing/pacer.ts"
import * as Amounts from "../domain/amounts.ts"
import * as Rules from "../domain/rules.ts"
import type { StateSpec } from "./stateSpec.ts"
import * as Members from "./members.ts"
import * as State from "./state.ts"
import type { PoolState } from "./state.ts"
import * as StoreLoss from "./storeLoss.ts"
import * as Text from "./text.ts"

/** An unused state is stored until every debt and window is over, and for a month if there is a quota. */
const keepMillis = 3_600_000
const keepQuotaMillis = 30 * 86_400_000

export const pools: StateSpec<PoolState> = {
  noun: "pool",
  keyOf: State.keyOf,
  make: State.make,
  copy: State.copy,
  encode: Text.encode,
  decode: Text.decode,
  keepFor: ({ config }) => (Rules.hasQuota(config.rules) ? keepQuotaMillis : keepMillis),

  answerMillis: ({ law }) => law.answerMillis,
  frees: ({ config, law }) => Math.min(config.concurrency, law.window.size) < Infinity,
  isUrgent: ({ law: { gate } }, now) => gate.misses > 0 || gate.until > now,
  // A process that joins takes its time from the state, so commits continue until a pause is over.
  mayStopCommitting: ({ law: { gate } }, now) => gate.until <= now,

  sums: Members.charges,
  prepare: (state, _, now) => Members.keepParts(state, now),
  configure: Members.configure,
  join: (joined, committed) => ({ ...joined, spent: committed?.spent ?? Amounts.nothing }),
  takeBack: ({ law }, member) => Members.takeBack(law, member),
  giveUp: Members.giveUp,
  revive: Members.revive,
  forget: () => {},
  retracted: Members.retracted,
  complete: Members.count,

  lost: () => {},
  takeOver: StoreLoss.takeOver,
  adopt: StoreLoss.adopt,

  partOf: Members.partOf,
  smaller: Members.smaller,
  isEmpty: ({ calls, of }) => of === 0 || calls === 0,
  leftOf: (part, { law }) => Members.leftOf(part, law),
  alone: (whole, id, part, now) => {
    const member = whole.members[id]!
    const own = { ...member, inFlight: 0, held: Amounts.nothing, spent: Amounts.nothing, part: undefined }
    return {
      ...whole,
      law: Members.partOfLaw(whole.law, part, member.inFlight, now),
      config: { ...whole.config, concurrency: part.calls },
      members: { [id]: own },
      degraded: { of: part.of, open: new Set() }
    }
  },
  ended: ({ law }, calls) => void (law.inFlight -= calls),
  comeBack: ({ law }, ours, used, began, ended) => {
    if (ours !== undefined) ours.spent = Amounts.plus(ours.spent, used.spent)
    Members.comeBack(law, began.law, ended.law, ours?.part === undefined)
    for (const admission of ended.degraded!.open) Pacer.adopt(law, admission)
  }
}
