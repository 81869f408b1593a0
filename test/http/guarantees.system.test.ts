import { guarantees } from "../support/clientSuite.ts"
import { spoken } from "../support/spoken.ts"
import { fetchServed } from "../support/ways.ts"

// What every way into the governor guarantees, under each protocol that a governed fetch knows.
for (const way of spoken.map(fetchServed)) guarantees(way)
