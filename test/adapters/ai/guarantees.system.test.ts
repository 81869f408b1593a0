import { guarantees } from "../../support/clientSuite.ts"
import { aiServed, aiSimulated, clientServed, clientSimulated } from "../../support/ways.ts"

// The same guarantees for every way of use, under TestClock and over real HTTP.
for (const way of [clientSimulated, aiSimulated, clientServed, aiServed]) guarantees(way)
