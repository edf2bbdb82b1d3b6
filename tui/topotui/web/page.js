"use strict";
// The screen comes from where the page came from, also through a tunnel with another port.
document.getElementById("terminal").dataset.sessionWebsocketUrl = location.origin.replace(/^http/, "ws") + "/ws";
document.getElementById("again").addEventListener("click", () => location.reload());
// Keys go to the terminal at once; it is there when the handler of the terminal's own script has run.
window.addEventListener("load", () => setTimeout(() => document.querySelector(".xterm-helper-textarea")?.focus()));
