import { guarantees } from "../../support/clientSuite.ts"
import { runServed } from "../../support/ways.ts"

// What every way into the governor guarantees, for code without Effect.
guarantees(runServed)
