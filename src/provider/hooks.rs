//! The webhooks of an instance: what each is called, which call sets it, and where the instance shows it.
//! The names are the documentation's; where its pages contradict each other (`update-webhook-status`, `-receive`), the one
//! that working clients use.

use serde::Serialize;

/// What can be set about an instance's webhooks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// The instance was linked to WhatsApp.
    Connected,
    /// The link was lost.
    Disconnected,
    /// A message was handed to WhatsApp, or failed.
    Delivery,
    /// Something was received.
    Received,
    /// Something was received or sent; where it is set it takes the place of `Received`.
    ReceivedAndSent,
    /// The status of a message changed.
    MessageStatus,
    /// A contact came, went, or writes.
    ChatPresence,
    /// The flag: messages sent by oneself are notified too.
    SentByMe,
}

impl Hook {
    /// Every one, in the order in which they are set and shown.
    pub const ALL: [Hook; 8] = [
        Hook::Connected,
        Hook::Disconnected,
        Hook::Delivery,
        Hook::Received,
        Hook::MessageStatus,
        Hook::ChatPresence,
        Hook::ReceivedAndSent,
        Hook::SentByMe,
    ];

    /// Those that one call sets all at once.
    pub(super) const PLAIN: [Hook; 6] = [
        Hook::Connected,
        Hook::Disconnected,
        Hook::Delivery,
        Hook::Received,
        Hook::MessageStatus,
        Hook::ChatPresence,
    ];

    /// For people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Hook::Connected => "connected",
            Hook::Disconnected => "disconnected",
            Hook::Delivery => "delivery",
            Hook::Received => "received",
            Hook::ReceivedAndSent => "received and sent",
            Hook::MessageStatus => "message status",
            Hook::ChatPresence => "chat presence",
            Hook::SentByMe => "sent by me",
        }
    }

    /// The call that sets it.
    pub(super) fn path(self) -> &'static str {
        match self {
            Hook::Connected => "update-webhook-connected",
            Hook::Disconnected => "update-webhook-disconnected",
            Hook::Delivery => "update-webhook-delivery",
            Hook::Received => "update-webhook-received",
            Hook::ReceivedAndSent => "update-webhook-received-delivery",
            Hook::MessageStatus => "update-webhook-message-status",
            Hook::ChatPresence => "update-webhook-chat-presence",
            Hook::SentByMe => "update-notify-sent-by-me",
        }
    }

    /// The field of `/me` that shows it.
    pub(super) fn field(self) -> &'static str {
        match self {
            Hook::Connected => "connectedCallbackUrl",
            Hook::Disconnected => "disconnectedCallbackUrl",
            Hook::Delivery => "deliveryCallbackUrl",
            Hook::Received => "receivedCallbackUrl",
            Hook::ReceivedAndSent => "receivedAndDeliveryCallbackUrl",
            Hook::MessageStatus => "messageStatusCallbackUrl",
            Hook::ChatPresence => "presenceChatCallbackUrl",
            Hook::SentByMe => "receiveCallbackSentByMe",
        }
    }
}

/// The call that sets all of [`Hook::PLAIN`].
pub(super) const EVERY: &str = "update-every-webhooks";
/// The call that shows the instance.
pub(super) const ME: &str = "me";
