// Entry of the page.
import { render } from "preact";
import "uplot/dist/uPlot.min.css";
import "./style.css";
import { App } from "./app.tsx";
import { watchMesh } from "./data/watch.ts";

const root = document.getElementById("app");
if (!root) throw new Error("index.html has no #app element");
watchMesh();
render(<App />, root);
