// Keeps the newest message in view, as Discord does, until the viewer scrolls away from it.

// This close to the end counts as being at the end: a viewer rarely stops on the exact pixel.
const NEAR_END_PX = 80;
const timeline = document.getElementById("channel-timeline");
const composer = document.getElementById("channel-composer");
let following = true;

function follow() {
  if (following) timeline.scrollTop = timeline.scrollHeight;
}

function updateFollowing() {
  requestAnimationFrame(() => {
    following = timeline.scrollHeight - timeline.scrollTop - timeline.clientHeight < NEAR_END_PX;
  });
}

for (const kind of ["wheel", "touchmove", "keyup", "pointerup"]) {
  timeline.addEventListener(kind, updateFollowing, { passive: true });
}
// In the capturing phase, because the page stops the propagation of the events it handles.
document.addEventListener("submit", () => { following = true; }, true);
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && composer.contains(event.target)) following = true;
}, true);
document.getElementById("viewer-picker").addEventListener("change", () => { following = true; });
for (const id of ["message-picker", "view-action-output", "back-activity", "history-older"]) {
  document.getElementById(id).addEventListener("click", () => { following = false; });
}

const observer = new ResizeObserver(follow);
observer.observe(document.getElementById("channel-message-list"));
observer.observe(timeline);
