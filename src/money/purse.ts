/** A running ledger in its public form. */
import { byCallersClock } from "../domain/input/clock.ts"
import { check } from "../domain/input/checks.ts"
import { check as checkCap, inUnits, type Purse } from "../domain/spending/models.ts"
import type { RunningLedger } from "./ledger.ts"

export const purseOf = (ledger: RunningLedger): Purse => {
  const { name } = ledger
  const using = byCallersClock(ledger)
  return {
    name,
    isShared: ledger.port.outlives,
    status: using(() => ledger.status),
    resize: (cap) =>
      using(() => {
        if (cap !== undefined) check("Spending.resize", checkCap, cap)
        ledger.resize(inUnits(cap))
      }),
    reset: using(() => ledger.reset()),
    kept: using(() => ledger.kept),
    internals: ledger
  }
}
